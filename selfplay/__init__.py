"""selfplay: one policy learns software engineering by planting bugs and repairing them.

One policy alternates injector and solver in sandboxed repositories; bugs are specified by
validated test patches; a curriculum controller scores consistency and feeds rewards to the
RL learner (Self-play SWE-RL, arXiv 2512.18552).
"""

__version__ = "0.1.0"
