"""OPC UA StatusCodes that Fieldlab itself sets, and how to tell Good from Bad.

Numbers: OPC 10000-6, annex A.2 (StatusCode.csv of the OPC Foundation).
"""

import numpy as np
from numpy.typing import NDArray

GOOD = 0x00000000
UNCERTAIN = 0x40000000
NOT_ACCURATE = 0x40930000  # UncertainSensorNotAccurate
BAD = 0x80000000
BAD_NO_COMMUNICATION = 0x80310000
BAD_OUT_OF_RANGE = 0x803C0000
BAD_TYPE_MISMATCH = 0x80740000

_SEVERITY = 0xC0000000


def is_good(status: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Whether the severity bits (the top two) of each StatusCode say Good."""
    good: NDArray[np.bool_] = (status & np.uint32(_SEVERITY)) == 0
    return good


def is_bad(status: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Whether the top bit of each StatusCode is set: there is no value."""
    bad: NDArray[np.bool_] = (status & np.uint32(BAD)) != 0
    return bad
