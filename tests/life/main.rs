//! The life of a runner from outside: the real binary as PID 1 of a PID namespace, against the simulated forge and the
//! stand-in agent.
//!
//! `harness` is the container that each test gets; every other file is one idea. Needs root, `unshare` and `setpriv`, and the
//! stand-in's programs (`cargo test --workspace`, or `cargo build -p oscr-sim --bins` first).

mod app;
mod aside;
mod azure;
mod boards;
mod calls;
mod config;
mod control;
mod credentials;
mod docker;
mod doctor;
mod engine;
mod faults;
mod filter;
mod fixed_name;
mod forge;
mod forge_refusals;
mod ghosts;
mod happy;
mod harness;
mod held_back;
mod hooks;
mod hostile;
mod jit;
mod kill;
mod limits;
mod listener;
mod lock;
mod marks;
mod monitoring;
mod names;
mod operator;
mod output;
mod own_network;
mod page;
mod persistent;
mod policy;
mod printing;
mod privileges;
mod proxy;
mod reasons;
mod refusals;
mod renamed;
mod results;
mod secrets;
mod set_aside;
mod set_up;
mod stop;
mod stopped;
mod taint;
mod trial;
mod unasked;
mod unread;
mod update;
mod values;
mod watchdog;
mod way_out;
