"""Steps of training small encoders."""

import time

import stacked

from cuda_sections.setting import Setting
from lpe_eval.spec.che_spec import CheProtocol, read_protocol
from lpe_eval.spec.encoding_spec import EncodingSpec


def steps(setting: Setting) -> None:
    """A step of the protocol `deepmind`, all runs of it; see `stacked.py`."""
    changes = {"layers": 1, "batch": 4, "seeds": [0]} if setting.smoke else {}
    protocol = CheProtocol.model_validate({**read_protocol("deepmind").model_dump(), **changes})
    for encoding in ("none", "rope", "kerple_log", "dape(kerple_log)"):
        for length in (5,) if setting.smoke else (10, 40):
            if setting.late():
                return
            made = stacked.candidates(EncodingSpec.parse(encoding), length, protocol, setting.device)
            for name in sorted(made, key=lambda each: "alone" in each):
                if setting.late():
                    return
                with setting.case(encoding=encoding, length=length, runs=len(protocol.runs), way=name) as result:
                    timed = stacked.medians({name: made[name]}, 3, setting.device, time.perf_counter)
                    result["milliseconds"] = timed[name]
                    result["why_not_replayed"] = made[name]()
