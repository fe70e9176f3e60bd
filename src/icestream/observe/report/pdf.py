"""The report as a PDF, printed by a browser without a screen, if the machine has one."""

import os
import subprocess
import tempfile
from pathlib import Path

from icestream.errors import SessionError, WorkflowError
from icestream.files import publish
from icestream.flow.declaration import FoundProgram, Program, ProgramSettings
from icestream.flow.workflow import clean_environment, find_program, read_program_settings

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LONGEST_S = 180.0

_OPTIONS = (
    "--headless",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-pdf-header-footer",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def write_pdf(page: Path, target: Path, *, programs: Path | None = None) -> Path:
    """Print a report as a PDF and return its path; ``programs`` is the facility's file of programs.

    Raises
    ------
    SessionError
        No browser was found, or it made no PDF.
    """
    browser = _find_browser(programs)
    with tempfile.TemporaryDirectory(prefix="icestream-pdf-") as folder, publish(target) as temporary:
        more = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to sandbox what root runs
        command = [
            str(browser.path),
            *_OPTIONS,
            *more,
            f"--user-data-dir={folder}",
            *browser.settings.arguments,
            f"--print-to-pdf={temporary.absolute()}",
            page.absolute().as_uri(),
        ]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env={**clean_environment(browser.settings), "HOME": folder},
                timeout=browser.settings.timeout_s or LONGEST_S,
                check=False,
                start_new_session=True,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SessionError(f"{target}: was not made: {error}") from error
        if done.returncode != 0 or not temporary.is_file() or temporary.read_bytes()[:5] != b"%PDF-":
            said = " ".join(done.stderr.decode(errors="replace").split())[-400:]
            raise SessionError(f"{target}: {browser} made no PDF (status {done.returncode}): {said or 'it printed nothing'}")
    return target


def _find_browser(programs: Path | None) -> FoundProgram:
    settings = read_program_settings(programs)
    for name in BROWSERS:
        try:
            return find_program(Program(name), settings.get(name, ProgramSettings()))
        except WorkflowError as error:
            if name in settings:
                raise SessionError(f"the browser for the PDF: {error}") from error
    raise SessionError(
        f"no browser that could print the PDF was found ({', '.join(BROWSERS)}); install Chromium, or give its `path` as "
        "`chromium` in the file of programs (setting ICESTREAM_PROGRAMS)"
    )
