"""The contrast transfer function: fitting it, judging the fit, and what else the Thon rings tell."""
