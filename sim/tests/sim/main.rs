//! The forge and the stand-in agent, held against what they stand for.

#![allow(missing_docs, reason = "tests say by their names what they hold")]

mod agent;
mod azure;
mod common;
mod forge;
mod official;
mod scripts;
mod wire;
