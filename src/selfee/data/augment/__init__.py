"""Questions become chains of answer, feedback and revision through a teacher; no reply is paid for twice or lost.

``Job`` runs a file of samples. Never knows how training or judging works.
"""

from selfee.data.augment.job import Job, Progress, Shard
from selfee.data.augment.settings import AugmentSettings, OnLeak, OnTrouble
from selfee.data.augment.teachers import Teacher, Teachers

__all__ = ["AugmentSettings", "Job", "OnLeak", "OnTrouble", "Progress", "Shard", "Teacher", "Teachers"]
