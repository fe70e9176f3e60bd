"""Steps that run other people's programs, behind one contract.

A step declares its `Program` in the decorator (``programs=(…,)``), so that the engine finds it and asks for its version before
anything starts. Within a call it stages its inputs into ``ctx.work_folder`` under names of its own (`staging`), builds the list
of arguments (`Command`), runs the program (`run_program`), and reads what came out with a parser that was tested on real output.

Programs are started, never imported: what they are licensed under does not concern us. Nothing passes through a shell, and no
name that comes from data reaches a program. One folder for each suite of programs.
"""

from icestream.external.command import Command
from icestream.external.process import EndedWell, Finished, run_program
from icestream.external.staging import stage_file, stage_image

__all__ = ["Command", "EndedWell", "Finished", "run_program", "stage_file", "stage_image"]
