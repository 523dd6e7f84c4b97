"""What SSH needs at both ends of a test's host: keys, accounts, configurations, and what a difficult host does beside.

Law: writes files; starts nothing but ssh-keygen.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner import roots

if TYPE_CHECKING:
    from provisioner.hosts import Host

OTHER = "eve"
"""Another user of every host."""
NOISE = "*** Welcome to this host! ***"
"""What a noisy host says wherever it can."""

_CONFIG = """\
Port {port}
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/keys/%u
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PidFile /etc/ssh/ready
Subsystem sftp internal-sftp
{banner}
{more}
"""
_CLIENT = """\
Host {name}
  HostName {address}
  Port {port}
  User {user}
  IdentityFile {folder}/key
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
  KexAlgorithms curve25519-sha256
"""
# Process 1 of a host. What a real machine forgets when it restarts is mounted anew, in a mount namespace that ends with it. The
# server writes its process id, once it listens, into a pipe that is waited for.
_BOOT = """\
mount -t proc proc /proc && mount -t tmpfs -o mode=755 run /run && mount -t tmpfs -o mode=1777 shm /dev/shm || exit
[ ! -e /mnt/proc ] || umount -l /mnt || exit  # the root of the machine that the host was made on
mkdir -m 755 /run/sshd && exec /usr/sbin/sshd -D -e 2>>/var/log/sshd.log
"""
GARBAGE = """\
import os, socket, sys
listener = socket.create_server(("", int(sys.argv[1])))
os.write(1, b".")
while True:
    connection = listener.accept()[0]
    connection.sendall(os.urandom(5000).replace(b"SSH-", b"----"))
    connection.close()
"""
"""A program that listens on the port given and answers what is no SSH; it writes a byte once it listens."""


def configure(host: Host, etc: Path) -> None:
    """Write what the host has in /etc, and into its folder what a client here needs."""
    public = _make_key(host.folder / "key", host.passphrase)
    for name, text in _etc_of(host, public).items():
        roots.write(etc / name, text, 0o600 if name == "shadow" else 0o644)
    os.mkfifo(etc / "ssh/ready", 0o600)
    keys = {"right": _make_key(host.folder / "host_key"), "other": _make_key(host.folder / "other_key"), "nothing": ""}
    roots.write(etc / "ssh/host_key", (host.folder / "host_key").read_text(), 0o600)
    place = host.link.far if host.port == 22 else f"[{host.link.far}]:{host.port}"
    host.known_hosts.write_text(f"{place} {keys[host.known]}" if keys[host.known] else "")
    words = {"name": host.name, "address": host.link.far, "port": host.port, "user": host.user, "folder": host.folder}
    way = f"  ProxyJump {host.behind.name}\n{host.behind.config.read_text()}" if host.behind else ""
    host.config.write_text(_CLIENT.format(**words) + way)


def make_noise(home: Path) -> None:
    """Have every shell say something when it starts."""
    for name in (".bashrc", ".profile", ".cshrc"):
        roots.write(home / name, f"echo '{NOISE}'\n")


def _etc_of(host: Host, public: str) -> dict[str, str]:
    banner = "Banner /etc/issue.net" if host.noise else ""
    port = host.port + 1 if host.garbage else host.port
    noise = {"motd": f"{NOISE}\n", "issue.net": f"{NOISE}\n"} if host.noise else {}
    return {
        **roots.accounts({host.user: (host.uid, host.shell), OTHER: (host.uid + 1, "/bin/bash")}),
        **noise,
        "hostname": f"{host.name}\n",
        "hosts": f"127.0.0.1 localhost\n{host.link.far} {host.name}\n",
        "ssh/sshd_config": _CONFIG.format(port=port, banner=banner, more=host.sshd),
        "ssh/boot": _BOOT,
        f"ssh/keys/{host.user}": public,
        f"ssh/keys/{OTHER}": public,
    }


def _make_key(path: Path, passphrase: str = "") -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-a", "1", "-C", path.name, "-N", passphrase, "-f", path], check=True)
    return path.with_name(f"{path.name}.pub").read_text()
