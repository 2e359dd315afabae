"""Every syscall, ioctl, struct, netlink and nftables message; the only room with ctypes.  Not a line of policy."""
