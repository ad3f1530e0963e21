"""Runs a program in a terminal of its own and types into it.

terminal.py STEPS COLUMNS PROGRAM [ARGUMENT...], where STEPS is a JSON list of [text to wait for, text to type] or
[text to wait for, text to type, seconds to wait before that]. Prints a JSON
object: what the terminal showed, the exit code, whether the terminal showed what was typed at each step, and whether it does
at the end.
"""
import fcntl, json, os, pty, select, signal, struct, sys, termios, time

steps, columns, program = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    os.execv(program[0], program)

shown, deadline, seen, echoes, echoes_at_steps = b"", time.monotonic() + 60, 0, None, []
while time.monotonic() < deadline:
    # Looked at all along: when the program has gone, so has its end of the terminal.
    try:
        echoes = bool(termios.tcgetattr(terminal)[3] & termios.ECHO)
    except termios.error:
        pass
    if steps and steps[0][0].encode() in shown[seen:]:
        awaited, text, *pause = steps.pop(0)
        seen = shown.index(awaited.encode(), seen) + len(awaited.encode())
        time.sleep(*pause or [0])
        echoes_at_steps.append(bool(termios.tcgetattr(terminal)[3] & termios.ECHO))
        os.write(terminal, text.encode())
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
    os.killpg(pid, signal.SIGKILL)
_, status = os.waitpid(pid, 0)
print(json.dumps({
    "shown": shown.decode(errors="replace"),
    "code": os.waitstatus_to_exitcode(status),
    "echoes": echoes,
    "echoes_at_steps": echoes_at_steps,
    "steps_left": len(steps),
}))
