"""An independent reader of a keystead file store, written from FORMAT.md alone.

It opens the database read-only, checks all that the format says and prints one sorted line per record:
the id and the key, both in lowercase hexadecimal. Whatever breaks the format ends it with exit code 1.
"""
import argparse, hashlib, hmac, itertools, pathlib, sqlite3, struct, sys, unicodedata
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

CELLS = {1: "CREATE TABLE cells (part BLOB PRIMARY KEY, bytes BLOB) WITHOUT ROWID",
         2: "CREATE TABLE cells (part BLOB PRIMARY KEY, bytes BLOB, next BLOB) WITHOUT ROWID"}
KEYRING = "CREATE TABLE keyring (number INTEGER PRIMARY KEY, bytes BLOB)"
PRAGMAS = {"application_id": 0x4B535444, "page_size": 4096}
HEAD, END = bytes(33), b"\xff" * 9
ALGORITHM = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM"
HEADER, MESSAGE = 554, 628  # the keyring's bytes before the sealed message, and that message's length

def need(condition, message):
    if not condition:
        raise ValueError(message)

def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value.to_bytes(8, "big")

def fields(*values):
    return b"".join(len(value).to_bytes(2, "big") + value for value in values)

def unseal(key, context, sealed, mismatch):
    salt, commitment, chunk = sealed[:24], sealed[24:56], sealed[56:]
    derived = HKDFExpand(SHA512(), 76, ALGORITHM + b"\0" + salt + context).derive(key)
    need(hmac.compare_digest(derived[44:], commitment), mismatch)
    try:  # there is one chunk, and its number 0 leaves the base nonce as it is
        return AESGCM(derived[:32]).decrypt(derived[32:44], chunk, None)
    except InvalidTag:
        raise ValueError("damaged: an AES-GCM tag does not match") from None

def open_keyring(ring, kind_given, secret):
    end = HEADER + 24 + 32 + MESSAGE + 16
    need(isinstance(ring, bytes) and len(ring) == end + 32, f"keyring: not {end + 32} bytes")
    need(hashlib.sha256(ring[:end]).digest() == ring[end:], "keyring: damaged, the checksum does not match")
    suite, kind, zero, generation, memory, passes, lanes, salt, length = struct.unpack(">BBHQIII16sH", ring[:42])
    need(suite == 1 and kind <= 2, "keyring: unknown suite or kind of root secret")
    need(zero == 0 and generation >= 1, "keyring: bad zeros or generation")
    need(kind == 1 or not any(ring[12:40]), "keyring: Argon2id fields are not zero")
    need(length <= (512 if kind == 2 else 0) and not any(ring[42 + length:HEADER]), "keyring: bad reference")
    need(kind == kind_given, f"keyring: its root secret is of kind {kind}")
    if kind == 1:
        in_bounds = 1 <= lanes <= 16 and 1 <= passes <= 16 and 8 * lanes <= memory <= 1_048_576
        need(in_bounds, "keyring: Argon2id parameters out of bounds")
        secret = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory).derive(secret)
    message = unseal(secret, fields(b"keystead/keyring/v1", ring[:HEADER]), ring[HEADER:end], "another root secret")
    count = int.from_bytes(message[48:52], "big")
    need(1 <= count <= 16, "keyring: bad number of epochs")
    epochs = list(struct.iter_unpack(">I32s", message[52:52 + 36 * count]))
    need(all(a[0] < b[0] for a, b in zip(epochs, epochs[1:])), "keyring: epochs do not ascend")
    need(not any(message[52 + 36 * count:]), "keyring: padding is not zero")
    return message[:16], message[16:48], dict(epochs)

def open_record(store_id, name_key, epochs, row_key, rows):
    need([part[32] for part, _ in rows] == list(range(len(rows))) and len(rows) <= 13, "record: bad part numbers")
    need(all(isinstance(cell, bytes) and len(cell) == 256 for _, cell in rows), "record: a part is not 256 bytes")
    record = b"".join(cell for _, cell in rows)
    suite, epoch = struct.unpack(">BI", record[:5])
    need(suite == 1, "record: unknown suite")
    need(epoch in epochs, "record: unknown epoch")  # keyring and cells are one snapshot, so no second reading
    context = fields(b"keystead/record/v1", store_id, record[1:5], row_key)
    message = unseal(epochs[epoch], context, record[5:], "record: the commitment does not match")
    ident, rest = message[1:1 + message[0]], message[1 + message[0]:]
    length = int.from_bytes(rest[:2], "big")
    key, padding = rest[2:2 + length], rest[2 + length:]
    need(1 <= len(ident) <= 128 and 1 <= len(key) == length <= 3072, "record: bad length of the id or the key")
    need(len(padding) < 256 and not any(padding), "record: bad padding")
    text = ident.decode(errors="replace")
    need(text.encode() == ident, "record: the id is not UTF-8")
    need(all(unicodedata.category(c) != "Cc" for c in text), "record: a control character in the id")
    need(hmac.compare_digest(hmac.digest(name_key, ident, "sha256"), row_key), "record: not the row key of its id")
    return ident, key

def read_store(path, kind, secret):
    db = sqlite3.connect(pathlib.Path(path).absolute().as_uri() + "?mode=ro", uri=True, isolation_level=None)
    db.execute("BEGIN")  # one snapshot for all that follows
    for name, value in PRAGMAS.items():
        need(db.execute(f"PRAGMA {name}").fetchone()[0] == value, f"{name} is not {value}")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    need(version in CELLS, f"user_version {version} is not known")
    schema = [sql for sql, in db.execute("SELECT sql FROM sqlite_schema ORDER BY name")]
    need(schema == [CELLS[version], KEYRING], "unknown schema")
    rings = dict(db.execute("SELECT number, bytes FROM keyring"))
    need(sorted(rings) == list(range(1, version + 1)), "keyring: not the rows of this format")
    need(version == 1 or len(rings[2]) == 40 and rings[2].startswith(b"keystead/log/v1\0"), "keyring: no instance")
    keyring = open_keyring(rings[1], kind, secret)
    rows = db.execute("SELECT part, bytes FROM cells ORDER BY part").fetchall()
    need(all(isinstance(part, bytes) and len(part) == 33 for part, _ in rows), "cells: a part's key is not 33 bytes")
    if version > 1:
        links = [link for link, in db.execute("SELECT next FROM cells ORDER BY part")]
        need(rows[0] == (HEAD, bytes(256)), "cells: no head")
        chain = [part[:8] + part[32:] for part, _ in rows[1:]] + [END]
        need(links == [link + fnv(part + link) for (part, _), link in zip(rows, chain)], "cells: the chain is broken")
        del rows[0]
    runs = itertools.groupby(rows, lambda row: row[0][:32])
    return sorted(open_record(*keyring, row_key, list(run)) for row_key, run in runs)

def main():
    parser = argparse.ArgumentParser(description="Lists the records of a keystead file store.")
    parser.add_argument("path")
    secrets = parser.add_mutually_exclusive_group(required=True)
    secrets.add_argument("--root-hex-file", type=pathlib.Path)
    secrets.add_argument("--passphrase-file", type=pathlib.Path)
    arguments = parser.parse_args()
    try:
        if arguments.passphrase_file:
            kind, secret = 1, arguments.passphrase_file.read_bytes()
        else:
            kind, secret = 0, bytes.fromhex(arguments.root_hex_file.read_text("ascii"))
            need(len(secret) == 32, "root secret: not 64 hex digits")
        records = read_store(arguments.path, kind, secret)
    except (ValueError, OSError, sqlite3.Error, UnsupportedAlgorithm) as error:
        sys.exit(f"reader: {error}")
    for ident, key in records:
        print(ident.hex(), key.hex())

if __name__ == "__main__":
    main()
