"""Code and environment of the project in the current directory, without a job.

pyinfra @openssh/ALIAS deploys/project.py
"""

from pathlib import Path

from pyinfra import host, local

host.host_data.update(command="true", project_only=True)
local.include(str(Path(__file__).with_name("job.py")))
