"""Runs a program in a terminal of its own and types into it.

terminal.py STEPS PROGRAM [ARGUMENT...], where STEPS is a JSON list of [text to wait for, text to type]. Prints a JSON object:
what the terminal showed, the exit code, and whether the terminal shows what is typed again.
"""
import json, os, pty, select, sys, termios, time

steps, program = json.loads(sys.argv[1]), sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(program[0], program)

shown, deadline, seen, echoes = b"", time.monotonic() + 60, 0, None
while time.monotonic() < deadline:
    # Looked at all along: when the program has gone, so has its end of the terminal.
    try:
        echoes = bool(termios.tcgetattr(terminal)[3] & termios.ECHO)
    except termios.error:
        pass
    if steps and steps[0][0].encode() in shown[seen:]:
        seen = len(shown)
        os.write(terminal, steps.pop(0)[1].encode())
    if select.select([terminal], [], [], 0.05)[0]:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        if not data:
            break
        shown += data
try:
    echoes = bool(termios.tcgetattr(terminal)[3] & termios.ECHO)
except termios.error:
    pass
if time.monotonic() >= deadline:
    os.kill(pid, 9)
_, status = os.waitpid(pid, 0)
print(json.dumps({
    "shown": shown.decode(errors="replace"),
    "code": os.waitstatus_to_exitcode(status),
    "echoes": echoes,
    "steps_left": len(steps),
}))
