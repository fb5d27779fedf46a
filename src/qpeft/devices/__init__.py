"""Where circuits run that are not simulated here: quantum computers, and what stands in for one."""

from qpeft.devices.protocol import AbstractDevice, Capabilities, Distribution, JobState, JobStatus, run

__all__ = ["AbstractDevice", "Capabilities", "Distribution", "JobState", "JobStatus", "run"]
