"""A disk that forgets what was not flushed, when its power is cut.

nbdkit's `cache` filter in write-back mode keeps writes in a file of its own and passes them on only when a flush asks for it.
nbdfuse shows the disk as a file, a loop device makes that file a block device, and a real file system is mounted on it. Killing nbdkit is the
power cut: everything since the last flush is gone, as on a disk with a volatile write cache.
"""

import os
import signal
import subprocess
import time

FILE_SYSTEMS = ("ext4", "xfs", "btrfs")
PACKAGES = ["nbdkit", "libnbd-bin", "fuse3", "e2fsprogs", "xfsprogs", "btrfs-progs", "util-linux"]
SIZE = 1 << 30
PATIENCE = 60


def unfit():
    """Why this machine cannot have such a disk; an empty text if it can."""
    if os.geteuid():
        return "loop devices and mounts need root"
    for device, what in (("/dev/loop-control", "loop devices"), ("/dev/fuse", "FUSE")):
        try:
            os.close(os.open(device, os.O_RDWR))
        except OSError as error:
            return f"this machine has no {what}: {error}"
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        return "this process may not mount file systems"
    with open("/proc/filesystems") as known:
        there = known.read().split()
    missing = [one for one in FILE_SYSTEMS if one not in there and subprocess.run(["modprobe", "-q", one], capture_output=True).returncode]
    return f"this kernel cannot mount {', '.join(missing)}" if missing else ""


def run(*command):
    """Runs a command; what it said becomes part of the error."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stdout.strip()}")
    return done.stdout.strip()


def until(what, is_done):
    """Polls until something is so, or fails after PATIENCE seconds."""
    end = time.monotonic() + PATIENCE
    while not is_done():
        if time.monotonic() > end:
            raise RuntimeError(f"waited {PATIENCE} s in vain: {what}")
        time.sleep(0.005)


class Disk:
    """One image file with one file system; attached, cut and attached again."""

    def __init__(self, folder, file_system):
        self.image, self.device_file = f"{folder}/disk.img", f"{folder}/device"
        self.socket, self.mount = f"{folder}/nbd.sock", f"{folder}/mnt"
        self.nbdkit = self.nbdfuse = self.loop = None
        # XFS refuses to mount the same file system twice, and the kernel may let go of the dead one only after a while.
        self.options = ["-o", "nouuid"] if file_system == "xfs" else []
        os.makedirs(self.mount, exist_ok=True)
        open(self.device_file, "a").close()
        with open(self.image, "wb") as image:
            image.truncate(SIZE)
        force = "-F" if file_system == "ext4" else "-f"
        run(f"mkfs.{file_system}", "-q", force, self.image)

    def attach(self):
        """Power on: the file system recovers by its own journal or log."""
        if os.path.exists(self.socket):
            os.remove(self.socket)
        self.nbdkit = subprocess.Popen(
            ["nbdkit", "-f", "-U", self.socket, "--filter=cache", "file", self.image, "cache=writeback"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until("nbdkit listens", lambda: os.path.exists(self.socket))
        until("nbdfuse shows the disk", self.is_shown)
        self.loop = run("losetup", "-f", "--show", self.device_file)
        run("mount", *self.options, self.loop, self.mount)

    def is_shown(self):
        """Is the disk there as a file? nbdfuse that ended is started again: the kernel may still hold the mount of the dead one."""
        if self.nbdfuse is None or self.nbdfuse.poll() is not None:
            self.nbdfuse = subprocess.Popen(["nbdfuse", self.device_file, "--unix", self.socket],
                                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return os.path.getsize(self.device_file) == SIZE
        except OSError:
            return False

    def cut(self):
        """Power off: what was not flushed is gone."""
        if self.nbdkit:
            self.nbdkit.send_signal(signal.SIGKILL)

    def detach(self):
        """Clears away what a cut leaves behind; whoever used the disk has ended. Each step is done even when one before it failed."""
        failed = None
        for step in (self.unmount, self.free_loop, self.end_nbdfuse, self.end_nbdkit):
            try:
                step()
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                failed = failed or error
        if failed:
            raise failed

    def unmount(self):
        def is_done():
            return subprocess.run(["umount", self.mount], stderr=subprocess.DEVNULL).returncode == 0
        if not os.path.ismount(self.mount):
            return
        try:
            until("the file system lets go", is_done)
        except RuntimeError:
            subprocess.run(["umount", "-l", self.mount], stderr=subprocess.DEVNULL)
            raise

    def free_loop(self):
        loop, self.loop = self.loop, None
        if loop:
            run("losetup", "-d", loop)

    def end_nbdfuse(self):
        nbdfuse, self.nbdfuse = self.nbdfuse, None
        if nbdfuse:
            subprocess.run(["fusermount3", "-uz", self.device_file], stderr=subprocess.DEVNULL)
            nbdfuse.kill()
            nbdfuse.wait(PATIENCE)

    def end_nbdkit(self):
        nbdkit, self.nbdkit = self.nbdkit, None
        if nbdkit:
            nbdkit.kill()
            nbdkit.wait(PATIENCE)
