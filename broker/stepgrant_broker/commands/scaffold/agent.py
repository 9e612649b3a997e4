"""A small agent that survives being killed: press Ctrl-C, or kill -9 it, and start it again with the same words.

It makes a plan, greets people, writes each greeting into out/, and at the end publishes a report there, which a person
has to allow. Where a model would think, it only draws lots: so you can see that a plan is made once and kept.

    stepgrant dev -- python agent.py            (add a word for another run: python agent.py tuesday)
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import stepgrant

RUN = sys.argv[1] if len(sys.argv) > 1 else "first"
PAUSE = float(os.environ.get("PAUSE", "1.5"))  # seconds in which you can kill it
OUT = Path("out")
NOTES, REPORT = OUT / f"notes-{RUN}.txt", OUT / f"report-{RUN}.txt"


def say(text: str) -> None:
    """Tell whoever watches."""
    print(f"[agent] {text}", flush=True)


def pause(what: str) -> None:
    """Leave time to kill this process at an interesting moment."""
    say(f"        ... {what} (kill me now if you like)")
    time.sleep(PAUSE)


def tell_wait(_: stepgrant.errors.LeaseHeld) -> None:
    """Called before each wait for the lease of another process."""
    say("my predecessor may still be alive: I wait until its lease has lapsed")


def make_plan() -> list[str]:
    """Stands for a model: asked twice, it would answer differently."""
    say("making a plan, as a model would; this happens once in a run")
    people = ["Ada", "Grace", "Edsger", "Barbara", "Leslie"]
    return sorted(people, key=lambda name: hash((name, time.time_ns())))[:3]


@stepgrant.tool(effect="read")
def greet(name: str) -> str:
    """Looks something up. Doing it again is harmless, so after a crash it is simply done again."""
    say(f"looking up a greeting for {name}")
    pause("reading")
    word = ["Hello", "Good day", "Welcome"][time.time_ns() % 3]
    return f"{word}, {name}!"


@stepgrant.tool(effect="idempotent", name="notes.append")
def append_note(text: str) -> int:
    """Writes one line. The step's idempotency key is in the line, so a second attempt finds it and writes no second."""
    key = stepgrant.current_step().idempotency_key
    lines = NOTES.read_text(encoding="utf-8").splitlines() if NOTES.exists() else []
    if not any(line.startswith(f"{key} ") for line in lines):
        say(f"writing into {NOTES}: {text}")
        with NOTES.open("a", encoding="utf-8") as file:
            file.write(f"{key} {text}\n")
    pause("the line is written, but not yet recorded")
    return NOTES.read_text(encoding="utf-8").count("\n")


def was_it_published(step: stepgrant.CurrentStep) -> stepgrant.Verdict:
    """Asked after a crash in `publish`: it looks, and never guesses."""
    say(f"I was killed while publishing, so I look whether {REPORT} is there")
    if REPORT.exists() and step.idempotency_key in REPORT.read_text(encoding="utf-8"):
        return stepgrant.done(str(REPORT), evidence="the file is there")
    return stepgrant.not_done(evidence="there is no such file")


@stepgrant.tool(effect="once", name="report.publish", reconcile=was_it_published, step_id="publish")
def publish(title: str, lines: list[str]) -> str:
    """Must happen at most once, and a person must allow it: policy/stepgrant_config/data.json says so."""
    key = stepgrant.current_step().idempotency_key
    say(f"publishing {REPORT}")
    with REPORT.open("x", encoding="utf-8") as file:
        file.write("\n".join([title, *lines, f"(published under {key})", ""]))
    pause("it is published, but not yet recorded")
    return str(REPORT)


def publish_when_allowed(title: str, lines: list[str]) -> str:
    """Asks again until a person has answered. You may stop the agent meanwhile: the question stays."""
    asked = None
    while True:
        try:
            return publish(title, lines)
        except stepgrant.ApprovalRequired as needed:
            if needed.approval_id != asked:
                asked = needed.approval_id
                say("a person has to allow the next step. In a second terminal, in this folder:")
                say(f"    stepgrant approval approve {asked}")
                say("I wait. You can also stop me, answer, and start me again.")
            time.sleep(2)


def main() -> None:
    """The whole agent: the same code whether it starts or comes back."""
    OUT.mkdir(exist_ok=True)
    say(f"my process is {os.getpid()}: kill -9 {os.getpid()} whenever you like")
    with stepgrant.run(
        f"greetings-{RUN}", agent="my-agent", input={"title": f"Greetings, {RUN}"}, on_wait=tell_wait
    ) as run:
        if run.resumed:
            say(f"I am back. This is holder {run.epoch} of the run; what was finished is not done again.")
        else:
            say(f"a new run: {run.key}")
        people = stepgrant.step("plan", make_plan)
        say(f"the plan: greet {', '.join(people)}, then publish")
        greetings = []
        for person in people:
            greetings.append(greet(person))
            append_note(greetings[-1])
            say(f"done with {person}: {greetings[-1]}")
        run.result = publish_when_allowed(run.input["title"], greetings)
    say(f"finished: {run.result}. What happened: stepgrant run show greetings-{RUN}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("stopped. Start me again with the same words, and I go on where I was.")
        sys.exit(130)
    except stepgrant.errors.RunEnded as over:
        say(f"the run greetings-{RUN} is {over.state or 'over'}. Another word gives a new one: python agent.py tuesday")
        sys.exit(0 if over.state == "completed" else 1)
    except stepgrant.StepgrantError as error:
        say(f"I cannot go on: {error}")
        sys.exit(1)
