"""A child of the demo hears each signal once, and says nothing that nobody asked for."""

import os
import signal
import subprocess
import sys
import time

PARENT = """
import sys
from hvc.demo import child
done = child.run([sys.executable, "-c", sys.argv[1]])
print(done.code, done.output.strip(), list(done.heard))
"""
COUNTS_SIGNALS = """
import signal, sys, time
heard = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: heard.append(number))
print("ready", file=sys.stderr, flush=True)
while not heard:
    time.sleep(0.01)
time.sleep(0.3)
print(len(heard))
sys.exit(75)
"""


def interrupted(code, *arguments):
    """Start, wait for the word `ready`, interrupt as a terminal does it; stdout and all of stderr."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output.strip(), errors


def test_ctrl_c_reaches_the_child_once_and_its_exit_code_comes_back():
    code, output, errors = interrupted(PARENT, COUNTS_SIGNALS)
    assert (code, output, errors) == (0, f"75 1 [{int(signal.SIGINT)}]", "")


def test_a_child_that_has_nothing_to_save_ends_without_a_traceback(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    os.mkfifo(recipe)
    code = (
        "import os, sys, threading\n"
        "from hvc.demo import tour\n"
        "def ready():\n"
        "    with open(sys.argv[1], 'w'):\n"
        "        sys.stderr.write('ready\\n'); sys.stderr.flush()\n"
        "        threading.Event().wait()\n"
        "threading.Thread(target=ready, daemon=True).start()\n"
        "try:\n    tour._hvc('train', sys.argv[1])\n"
        "except KeyboardInterrupt:\n    sys.stderr.flush(); os._exit(130)\n"
    )
    assert interrupted(code, str(recipe)) == (130, "", "")
