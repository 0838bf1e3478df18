//! The harness of the suites under `tests/`: network namespaces, connections, and a runner of the
//! `apifence` binary.
//!
//! All of it needs root. Nothing outlives a test: network namespaces have no name, and bpffs is
//! mounted in a mount namespace of the test's own thread. So the kernel frees everything however
//! the test ends.

pub mod assembly;
pub mod cli;
pub mod config_map;
pub mod delivery;
pub mod film;
pub mod flood;
pub mod foreign;
pub mod front;
pub mod guards;
pub mod held;
pub mod kernel;
pub mod lab;
pub mod loaded;
pub mod machines;
pub mod mounts;
pub mod net;
pub mod netns;
#[path = "../../filter-common/tests/verdicts/packets/mod.rs"]
pub mod packets;
pub mod peer;
pub mod plant;
pub mod prometheus;
pub mod scrape;
pub mod site;
pub mod stand_in;
pub mod strace;
#[path = "../../filter-common/tests/verdicts/table/mod.rs"]
pub mod table;
pub mod terminal;
pub mod tls;
pub mod tun;
pub mod wait;
pub mod worker;
