"""An account that is nowhere: every command succeeds and nothing is done, for demos."""

import re

ANSWER = """
@@rvstate 0 begin

@@rvstate 0 account
user demo\0uid 1000\0home /home/demo\0scratch /scratch/demo\0shell /bin/bash\0node login\0clock 0

@@rvstate 0 stat_all
d 755 1000 0 d /home/demo\0\0d 755 1000 0 d /scratch/demo\0\0

@@rvstate 0 end 0
"""

hosts = [
    (
        "@fake/demo",
        {
            "rvstate_site": "generic",
            "fake_delay": 0,
            "fake_delay_jitter": 0,
            "fake_responses": {re.compile("eval"): ANSWER.split("\n")},
        },
    )
]
