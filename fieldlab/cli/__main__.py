"""`python -m fieldlab.cli` is the command `fieldlab`."""

import sys

from fieldlab.cli import main

sys.exit(main())
