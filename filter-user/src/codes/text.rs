//! The explanation of each code, for `apifence explain`.

use super::Code;

/// The explanation of a code.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// In one line.
    pub title: &'static str,
    /// Its meaning.
    pub means: &'static str,
    /// Its consequences.
    pub harm: &'static str,
    /// The fix.
    pub fix: &'static str,
}

impl Code {
    /// Its explanation.
    pub const fn text(self) -> Text {
        match self {
            Self::UnguardedInterface => UNGUARDED_INTERFACE,
            Self::FilteredElsewhere => FILTERED_ELSEWHERE,
            Self::Everyone => EVERYONE,
            Self::UnreadablePolicy => UNREADABLE_POLICY,
            Self::PolicySource => POLICY_SOURCE,
            Self::WrittenByOthers => WRITTEN_BY_OTHERS,
            Self::UnguardedListener => UNGUARDED_LISTENER,
            Self::Tunnel => TUNNEL,
            Self::OutsideDestinations => OUTSIDE_DESTINATIONS,
            Self::RewrittenDestination => REWRITTEN_DESTINATION,
            Self::GenericXdp => GENERIC_XDP,
            Self::HiddenClients => HIDDEN_CLIENTS,
            Self::EphemeralPort => EPHEMERAL_PORT,
            Self::Expired => EXPIRED,
            Self::ClusterOverlay => CLUSTER_OVERLAY,
        }
    }
}

const UNGUARDED_INTERFACE: Text = Text {
    title: "an interface that should have the filter does not have it",
    means: "The settings name this interface, or it holds a default route or was guarded before. \
            Its packets do not meet the filter now: somebody took the program off, another XDP \
            program is there, or the interface was not there when the filter was attached.",
    harm: "Everybody who reaches this interface reaches the protected ports.",
    fix: "Run `apifence attach --interface NAME`. Where `apifence run` is up, it tries by itself: \
          its log and `/readyz` say what stops it.",
};

const FILTERED_ELSEWHERE: Text = Text {
    title: "a filter is attached whose pins are in another directory",
    means: "The kernel has an apifence program on this interface. Its link is not pinned in the \
            directory that this command uses, so this command does not see its policy.",
    harm: "A change of the list that you make here does not reach that filter. Nobody follows its \
           list, and it may drop clients that you let in.",
    fix: "Name the directory where the link is pinned with `--bpffs`; the hint of the warning \
          says which. Or take that filter off as the hint says.",
};

const EVERYONE: Text = Text {
    title: "a range in force lets in every address",
    means: "`0.0.0.0/0` or `::/0` is authorized, by the list, `cluster_cidrs` or \
            `outbound_ip_prefixes`.",
    harm: "Every source of that family reaches the protected ports: the filter does nothing for it.",
    fix: "`apifence ranges list` shows where the range comes from. Remove it there, with \
          `apifence ranges remove` or in the config file.",
};

const UNREADABLE_POLICY: Text = Text {
    title: "a filter is attached, and its policy cannot be read",
    means: "The program is on the interface, but the maps with its policy are not pinned any more, \
            or cannot be opened.",
    harm: "The filter judges packets by the policy that it has, and nobody can change that. A list \
           that you change now has no effect.",
    fix: "`apifence attach` attaches a new filter with a policy of its own; the hint of the warning \
          says more.",
};

const POLICY_SOURCE: Text = Text {
    title: "the files were not usable at the last start",
    means: "When the filter was started, the ranges file or the config file was missing or broken. \
            Something else was put in force: the policy last in force, the implicit sources \
            alone, default settings, or monitor mode.",
    harm: "What is in force is not what your files say. In monitor mode nothing is dropped.",
    fix: "`apifence status` names the file and the line. Correct it: `apifence run` takes it by \
          itself, otherwise run `apifence attach`.",
};

const WRITTEN_BY_OTHERS: Text = Text {
    title: "a user other than root can write a file that decides who is let in",
    means: "The ranges file, the config file, or the folder of one of them belongs to another user, \
            or others may write to it.",
    harm: "Whoever can write it can let anybody in, or lock you out. Under systemd `apifence run` \
           does not take such a file.",
    fix: "`chown root FILE` and `chmod go-w FILE`; the same for its folder.",
};

const UNGUARDED_LISTENER: Text = Text {
    title: "a protected port is reachable through an interface without a filter",
    means: "A process listens on a protected port, and an address of this interface leads to it. The \
            interface has no filter, nor has the one below it. Devices that carry traffic of \
            this node alone, such as bridges and veth pairs of containers, are not told.",
    harm: "Everybody who reaches this interface reaches the port.",
    fix: "Guard the interface: `apifence attach --interface NAME`, or add it to `interfaces` in the \
          config file. Or let the process listen on fewer addresses.",
};

const TUNNEL: Text = Text {
    title: "a tunnel without a filter",
    means: "This device takes packets out of other packets (VXLAN, WireGuard, IPIP, a VPN). The \
            filter on the network card sees the outer packet alone.",
    harm: "Whoever can send through the tunnel reaches the protected ports. Many tunnels take \
           packets from anybody who knows their port.",
    fix: "Guard the device: `apifence attach --interface NAME`. Where the filter does not work on it, \
          restrict the tunnel's peers. If the tunnel is meant as a way in, acknowledge it.",
};

const OUTSIDE_DESTINATIONS: Text = Text {
    title: "a protected port listens outside the guarded destinations",
    means: "`destinations` restricts the filter to some addresses. The process also listens on other \
            addresses of this node.",
    harm: "Everybody reaches the port at those addresses.",
    fix: "Add the addresses to `destinations`, or take the setting away to guard all of them.",
};

const REWRITTEN_DESTINATION: Text = Text {
    title: "addresses are rewritten here, and the filter sees them before",
    means: "`destinations` restricts the filter to some addresses, and nftables or IPVS rewrites \
            destinations on this node, as for a ClusterIP. That happens after the filter.",
    harm: "A packet to an address that is not guarded may be sent on to a protected port.",
    fix: "Add every address that leads to a protected port to `destinations` (the ClusterIP of \
          `kubernetes`, load-balancer addresses), or take the setting away.",
};

const GENERIC_XDP: Text = Text {
    title: "the filter runs in the network stack, not in the driver",
    means: "The driver of this interface did not take the program, or the setting asks for generic \
            XDP. The verdicts are the same.",
    harm: "Packets are dropped after the kernel made socket buffers of them, so a flood costs several \
           times as much.",
    fix: "`apifence status` says why the driver refused it. A smaller MTU, LRO switched off or a newer \
          kernel often helps; then `apifence detach` and `apifence attach`.",
};

const HIDDEN_CLIENTS: Text = Text {
    title: "all connections come from one or two addresses",
    means: "At least ten connections to protected ports are open, and all come from the same one or \
            two addresses. A load balancer or proxy that replaces the client's address looks \
            like that.",
    harm: "The filter sees the balancer and not its clients: it lets all of them in, or none.",
    fix: "Authorize clients at the balancer, or let it keep the client's address. If these really \
          are the clients, acknowledge the warning.",
};

const EPHEMERAL_PORT: Text = Text {
    title: "the node's own connections may start from a protected port",
    means: "The kernel may choose a protected port as the source port of a connection that this node \
            opens.",
    harm: "The answers go to a protected port, and the filter drops them where the server is not \
           listed: now and then a connection hangs.",
    fix: "Reserve the port: `sysctl -w net.ipv4.ip_local_reserved_ports=6443`, and the same in a file \
          under `/etc/sysctl.d`.",
};

const EXPIRED: Text = Text {
    title: "ranges have expired",
    means: "Entries of the list had an expiry, and it has passed. They let nobody in any more.",
    harm: "Whoever used them is dropped. Old entries also make the list hard to read.",
    fix: "`apifence ranges list` shows them. Remove them with `apifence ranges remove`, or add them \
          again with a later expiry.",
};

const CLUSTER_OVERLAY: Text = Text {
    title: "an overlay of the cluster's network carries pod traffic",
    means: "The device belongs to a network plugin (flannel, Calico, Cilium, OVN, Antrea, Weave). \
            Pods on other nodes reach this node through it.",
    harm: "API traffic of pods can come this way, past the filter: a pod needs no entry in the list. \
           The overlay also takes packets from whoever can send to its port (VXLAN: UDP 8472 or \
           4789; Geneve: UDP 6081; IPIP: protocol 4; WireGuard takes them from its peers alone).",
    fix: "Close the overlay's port to everybody but the cluster's nodes, in the cloud's security group \
          or in a firewall. To filter pods as well, guard the device: \
          `apifence attach --interface NAME`, with the pod CIDR in `cluster_cidrs`.",
};
