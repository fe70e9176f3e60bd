"""The acquisition simulator: movies with known truth, written at the pace of a microscope, with faults on demand.

The story: `settings` says what; `phantom` (from `chain`, `potential`) and `projection` make the particle; `draw` decides the
truth of one exposure; `exposure` (with `ice`, `motion`) forms its image and frames; `camera` counts; `writer` encodes; `pace`
and `faults` let the file appear; `simulate` does a session. `score` and `score_classes` compare results with the truth.
"""

from icestream.microscope.pace import Pace as Pace
from icestream.microscope.settings import Fault as Fault
from icestream.microscope.settings import SimulationSettings as SimulationSettings
from icestream.microscope.simulate import simulate as simulate
from icestream.microscope.truth import ExposureTruth as ExposureTruth
from icestream.microscope.truth import SessionTruth as SessionTruth
from icestream.microscope.truth import load_exposure_truth as load_exposure_truth
from icestream.microscope.truth import load_session_truth as load_session_truth
