//! The forge and the stand-in agent, held against what they stand for.

#![allow(missing_docs, reason = "tests say by their names what they hold")]

mod agent;
mod azure;
mod azure_manners;
mod common;
mod forge;
mod jobs;
mod official;
mod output;
mod places;
mod polls;
mod readme;
mod scripts;
mod updates;
mod wire;
