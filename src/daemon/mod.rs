//! The daemon: assembles the rooms, handles signals, reloads, drains, speaks to systemd.
