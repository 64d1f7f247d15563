"""`python -m mq9_broker` is the command `mq9-broker`."""

import sys

from mq9_broker.cli import main

sys.exit(main())
