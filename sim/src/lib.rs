//! A simulated forge and stand-in agents.
