"""Checks a receipt log by FORMAT.md alone, with the standard library of Python only.

receipts.py LOG [PUBLIC_KEY_FILE]

Prints the count, the head, the number of receipts and of markers, and exits with 0. If a line is wrong, prints `line N`
and exits with 7. With a public key in PEM each line must be signed with it.
"""
import base64, hashlib, json, re, sys

# Ed25519, RFC 8032, section 5.1.
P = 2**255 - 19
Q = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def add(one, two):
    x1, y1, z1, t1 = one
    x2, y2, z2, t2 = two
    a, b = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * t1 * t2 * D % P, 2 * z1 * z2 % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(scalar, point):
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def decompress(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    x = P - x if x & 1 != sign else x
    return (x, y, 1, x * y % P)


def has_signed(public_key, message, signature):
    a, r, s = decompress(public_key), decompress(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= Q:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public_key + message).digest(), "little") % Q
    base_y = 4 * pow(5, -1, P) % P
    base = decompress(base_y.to_bytes(32, "little"))
    one, two = multiply(s, base), add(r, multiply(h, a))
    return (one[0] * two[2] - two[0] * one[2]) % P == 0 and (one[1] * two[2] - two[1] * one[2]) % P == 0


# The lines.
def hexadecimal(digits):
    return lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{%d}" % digits, value) is not None


def number(value):
    return type(value) is int and 0 <= value < 2**64


def marker(value):
    return isinstance(value, dict) and set(value) == {"bytes", "sha256"} \
        and number(value["bytes"]) and hexadecimal(64)(value["sha256"])


EVERY = {"seq": number, "prev": hexadecimal(64), "at": number}
SIGNED = {"public_key": hexadecimal(64), "signature": hexadecimal(128)}
FIRST = {"keystead_receipts": lambda value: value == 1 and number(value), "log": hexadecimal(32)}
KINDS = {"log": FIRST, "receipt": {"receipt": lambda value: isinstance(value, dict)}, "torn": {"torn": marker}}


def once(pairs):
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is there twice")
    return fields


def parse(line):
    """The fields of a line, or None."""
    if len(line) > 65536:
        return None
    try:
        fields = json.loads(line.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    for kind, its_own in KINDS.items():
        for extra in ({}, SIGNED):
            shape = {**EVERY, **its_own, **extra}
            if set(fields) == set(shape) and all(test(fields[name]) for name, test in shape.items()):
                if extra and not line.endswith(b',"signature":"%s"}' % fields["signature"].encode()):
                    return None
                return {**fields, "kind": kind}
    return None


class Wrong(Exception):
    pass


def check(data, public_key):
    seq, prev, receipts, markers, signed = -1, "0" * 64, 0, 0, None
    torn, torn_at = None, 0
    lines = data.split(b"\n")
    # What follows the last line break is a line without one, if it is anything.
    for line_number, line in enumerate(lines, 1):
        is_ended = line_number < len(lines)
        if not is_ended and not line:
            break
        fields = parse(line)
        fits = fields is not None and is_ended and fields["seq"] == seq + 1 and fields["prev"] == prev \
            and (fields["kind"] == "log") == (seq == -1)
        if fits and fields["kind"] == "torn":
            # What was found, without the line break that was added if it did not end with one.
            found = [b""] if torn is None else [torn + b"\n"] + [torn] * (torn[-1:] not in (b"", b"\n"))
            fits = fields["torn"] in [{"bytes": len(f), "sha256": hashlib.sha256(f).hexdigest()} for f in found]
        elif fits and torn is not None:
            fits = False
        if not fits:
            if seq == -1:
                raise Wrong(line_number)
            torn, torn_at = (line, line_number) if torn is None else (torn + b"\n" + line, torn_at)
            continue
        if signed is None:
            signed = "signature" in fields
        if signed != ("signature" in fields) or (public_key and not signed):
            raise Wrong(line_number)
        if signed:
            message, key = line[:line.rindex(b',"signature":')], bytes.fromhex(fields["public_key"])
            if public_key not in (None, key) or not has_signed(key, message, bytes.fromhex(fields["signature"])):
                raise Wrong(line_number)
        seq, prev, torn = fields["seq"], hashlib.sha256(line).hexdigest(), None
        receipts, markers = receipts + (fields["kind"] == "receipt"), markers + (fields["kind"] == "torn")
    if torn is not None or seq == -1:
        raise Wrong(torn_at or 1)
    return seq, prev, receipts, markers


def read_public_key(path):
    text = open(path).read()
    block = re.fullmatch("-----BEGIN PUBLIC KEY-----(.*)-----END PUBLIC KEY-----\\s*", text, re.S)
    der = base64.b64decode(block.group(1))
    assert der[:12] == bytes.fromhex("302a300506032b6570032100") and len(der) == 44
    return der[12:]


try:
    key = read_public_key(sys.argv[2]) if len(sys.argv) > 2 else None
    print(*check(open(sys.argv[1], "rb").read(), key))
except Wrong as wrong:
    print("line", wrong)
    sys.exit(7)
