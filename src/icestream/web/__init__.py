"""The web application: sessions in a browser, and the same as JSON for scripts.

`app` puts it together: `guard` lets only proper requests in, `access`, `sign_in` and `callers` know who asks, `places` finds the
sessions and `live` keeps what it has read while nothing changes, `events` tells browsers that something has. The pages are plain
ES modules in ``static``; each shows what one address under ``/api/v1`` answers.
"""
