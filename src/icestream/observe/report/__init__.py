"""The report: one HTML file that shows a session, on a wall screen, on a phone, from a stick, without a network.

The page asks for nothing: style, script and pictures are inside, and its content security policy allows nothing else. A facility
has a folder of templates, a style and settings of its own, and a session may have one too; those they leave out are ours.
"""

from icestream.observe.report.content import ReportData, gather
from icestream.observe.report.keeping import ReportKeeper
from icestream.observe.report.layers import DENSITY_SCRIPT
from icestream.observe.report.pdf import write_pdf
from icestream.observe.report.problems import Problem
from icestream.observe.report.publishing import check_command, publish_command, read_publication
from icestream.observe.report.writing import ReportWriter, Written, write_report

__all__ = [
    "DENSITY_SCRIPT",
    "Problem",
    "ReportData",
    "ReportKeeper",
    "ReportWriter",
    "Written",
    "check_command",
    "gather",
    "publish_command",
    "read_publication",
    "write_pdf",
    "write_report",
]
