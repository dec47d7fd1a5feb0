//! A container in a network of its own, whose way out can be taken away, as that of one is which shares it with a container that is
//! started anew.

use std::fs::File;
use std::io::copy;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use nix::unistd::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::harness::{Container, Forge, Gate, write_program};

/// The network of a container, which is made with each of its incarnations: it has a way out that leads nowhere.
pub struct OwnNetwork(Gate);

impl OwnNetwork {
    /// For the container's next incarnations.
    pub fn of(container: &mut Container<'_>) -> Self {
        let gate = container.gate();
        let wrapper = container.path("in-a-network");
        let (binary, gate_file) = (container.text("usr/local/bin/oscr-entry"), container.text("gate"));
        let inside = format!(
            "ip link set lo up; ip link add way type veth peer name out; ip address add 10.77.0.1/24 dev way; \
             ip link set way up; ip link set out up; ip route add default via 10.77.0.2; echo in its network; \
             read -r _ <\"{gate_file}\"; exec \"{binary}\""
        );
        write_program(&wrapper, &format!("#!/bin/sh\nexec unshare --net sh -ec '{inside}'\n"));
        container.in_namespace(&format!("entry='{}'", wrapper.display()));
        // A request that fails is worth half of it, in place of five minutes.
        container.set("OSCR_WATCH_INTERVAL", "1");
        Self(gate)
    }

    /// Lets an incarnation that was started begin, and reach nobody.
    pub fn alone(&mut self, container: &Container<'_>) {
        container.wait_line("in its network");
        self.0.open();
    }

    /// The same, and it reaches the forge for as long as what this returns lives.
    #[must_use]
    pub fn with(&mut self, container: &Container<'_>, forge: &Forge) -> Relay {
        container.wait_line("in its network");
        let relay = self.reach(container, forge);
        self.0.open();
        relay
    }

    /// Has an incarnation that runs reach the forge.
    #[must_use]
    pub fn reach(&self, container: &Container<'_>, forge: &Forge) -> Relay {
        Relay::start(container.pid(), forge.address())
    }

    /// Takes its way out away.
    pub fn lose_the_way_out(&self, container: &Container<'_>) {
        let network = format!("--net=/proc/{}/ns/net", container.pid());
        let status = Command::new("nsenter").args([&network, "ip", "link", "delete", "way"]).status();
        assert!(status.expect("nsenter of util-linux").success());
    }

    /// The next incarnations have the machine's network again.
    #[allow(dead_code, reason = "the table of faults needs it")]
    pub fn leave(self, container: &mut Container<'_>) {
        container.in_namespace("");
        container.unset("OSCR_WATCH_INTERVAL");
    }
}

/// Makes the forge's address one of another network, as long as it lives.
pub struct Relay {
    listener: TcpListener,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn start(pid: Pid, forge: SocketAddr) -> Self {
        let (accepted, streams) = channel();
        // A thread of its own moves there; whoever connects to the forge stays here.
        let listener = std::thread::spawn(move || listen_in(pid, forge, accepted)).join().expect("a listener");
        let open = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&open);
        std::thread::spawn(move || {
            for inside in streams {
                let Ok(outside) = TcpStream::connect(forge) else { continue };
                let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
                all.lock().expect("nobody panics").extend([clone(&inside), clone(&outside)]);
                for (mut from, mut to) in [(clone(&inside), clone(&outside)), (outside, inside)] {
                    std::thread::spawn(move || {
                        let _ = copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        Self { listener, streams: open }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It refuses connections from now on, and its thread ends.
        let _ = nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        for stream in self.streams.lock().expect("nobody panics").iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Listens in the network of this process, and hands on what comes.
fn listen_in(pid: Pid, address: SocketAddr, accepted: Sender<TcpStream>) -> TcpListener {
    let network = File::open(format!("/proc/{pid}/ns/net")).expect("its network");
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).expect("we are root");
    let listener = TcpListener::bind(address).expect("nobody else listens there");
    let own = listener.try_clone().expect("a descriptor");
    std::thread::spawn(move || own.incoming().map_while(Result::ok).try_for_each(|stream| accepted.send(stream)));
    listener
}
