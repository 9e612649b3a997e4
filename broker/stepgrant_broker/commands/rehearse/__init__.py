"""`stepgrant rehearse -- python my_agent.py`: an agent is killed at every boundary of every step, and watched.

    a plain run ─▶ its steps and their boundaries ─▶ one fresh broker, folder and run for each way to die or to wait
                                                  ─▶ what was seen ─▶ findings, each with how to mend it

Rules:
* The agent's command runs as it is. It gets a private broker that lives in this process, and a copy of its folder.
* What is said of it rests on what the broker recorded, and on what `inside/sitecustomize.py` saw in its process.
* A finding is a fact of one rehearsal, never a guess; where something could not be seen, the report says so.
* Whatever ends it (the last rehearsal, Ctrl-C, a signal): no process of ours is left, and no folder.
"""
