//! OSCR: ephemeral CI runners.
