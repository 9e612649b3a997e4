"""Fails, whether it is killed or not."""

import stepgrant

with stepgrant.run("newsletter", agent="mailer"):
    raise RuntimeError("no mails today")
