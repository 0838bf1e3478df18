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
    title: "an interface that should have the filter has no filter",
    means: "The settings name this interface, or it has a default route, or it was guarded before. \
            Its packets are not filtered now. Another process may have removed the program or \
            attached its own, or the interface did not exist when the filter was attached.",
    harm: "Every source that reaches this interface reaches the protected ports.",
    fix: "Run `apifence attach --interface NAME`. If `apifence run` is up, it keeps trying: \
          its log and `/readyz` show the error.",
};

const FILTERED_ELSEWHERE: Text = Text {
    title: "a filter is attached whose pins are in another directory",
    means: "The kernel has an apifence program on this interface. Its link is not pinned in the \
            directory that this command uses, so this command does not see its policy.",
    harm: "Your changes of the list do not reach that filter. Its list gets old, and it may drop \
           clients that you allow.",
    fix: "Use the directory of that filter with `--bpffs`: the hint of the warning names it. \
          Or remove the filter as the hint says.",
};

const EVERYONE: Text = Text {
    title: "the authorized ranges contain every address",
    means: "The list, `cluster_cidrs` or `outbound_ip_prefixes` authorizes `0.0.0.0/0` or `::/0`.",
    harm: "Every source of that family reaches the protected ports: the filter has no effect.",
    fix: "`apifence ranges list` shows where the range comes from. Remove it there, with \
          `apifence ranges remove` or in the config file.",
};

const UNREADABLE_POLICY: Text = Text {
    title: "a filter is attached, and its policy cannot be read",
    means: "The program is attached, but the maps with its policy are no longer pinned, or cannot \
            be opened.",
    harm: "The filter keeps its policy, and no command can change it. Your changes of the list \
           have no effect.",
    fix: "Run `apifence attach`: it attaches a new filter with a new policy. See also the hint of \
          the warning.",
};

const POLICY_SOURCE: Text = Text {
    title: "the files were not usable at the last start",
    means: "When the filter started, the ranges file or the config file was missing or invalid. \
            So the filter uses the last good policy, only the implicit sources, the default \
            settings, or monitor mode.",
    harm: "The policy in force differs from your files. In monitor mode nothing is dropped.",
    fix: "`apifence status` shows the file and the line. Fix it. `apifence run` applies it by \
          itself; without `run`, use `apifence attach`.",
};

const WRITTEN_BY_OTHERS: Text = Text {
    title: "a user other than root can write a file of the policy",
    means: "Another user owns the ranges file, the config file or its folder, or can write to it.",
    harm: "That user can allow any source, or lock you out. Under systemd, `apifence run` \
           refuses such a file.",
    fix: "Run `chown root FILE` and `chmod go-w FILE`, also for its folder.",
};

const UNGUARDED_LISTENER: Text = Text {
    title: "a protected port is reachable through an interface without a filter",
    means: "A process listens on a protected port, and an address of this interface leads to it. The \
            interface has no filter, and neither has the device below it. There is no warning for \
            devices with only local traffic, such as bridges and veth pairs of containers.",
    harm: "Every source that reaches this interface reaches the port.",
    fix: "Guard the interface: `apifence attach --interface NAME`, or add it to `interfaces` in the \
          config file. Or make the process listen on fewer addresses.",
};

const TUNNEL: Text = Text {
    title: "a tunnel without a filter",
    means: "This device unpacks packets from other packets (VXLAN, WireGuard, IPIP, a VPN). The \
            filter on the network card sees only the outer packet.",
    harm: "Every source that can use the tunnel reaches the protected ports. Many tunnels accept \
           packets from every sender that knows their port.",
    fix: "Guard the device: `apifence attach --interface NAME`. If it cannot have a filter, \
          restrict the tunnel's peers. If API clients should use the tunnel, acknowledge the warning.",
};

const OUTSIDE_DESTINATIONS: Text = Text {
    title: "a protected port listens outside the guarded destinations",
    means: "`destinations` restricts the filter to some addresses. The process also listens on other \
            addresses of this node.",
    harm: "Every source reaches the port at those addresses.",
    fix: "Add the addresses to `destinations`, or remove the setting to guard all addresses.",
};

const REWRITTEN_DESTINATION: Text = Text {
    title: "this node rewrites destinations after the filter",
    means: "`destinations` restricts the filter to some addresses. nftables or IPVS rewrites \
            destinations on this node, as for a ClusterIP, and does so after the filter.",
    harm: "A packet to an unguarded address can be redirected to a protected port.",
    fix: "Add every address that leads to a protected port to `destinations` (the ClusterIP of \
          `kubernetes`, load-balancer addresses), or remove the setting.",
};

const GENERIC_XDP: Text = Text {
    title: "the filter runs in the network stack, not in the driver",
    means: "The driver of this interface refused the program, or the setting asks for generic XDP. \
            The verdicts are the same.",
    harm: "The kernel allocates a socket buffer for each packet before the filter drops it. A flood \
           costs several times more CPU time.",
    fix: "`apifence status` shows the driver's reason. A smaller MTU, no LRO or a newer kernel often \
          helps. Then run `apifence detach` and `apifence attach`.",
};

const HIDDEN_CLIENTS: Text = Text {
    title: "all connections come from one or two addresses",
    means: "At least ten connections to protected ports are open, all from the same one or two \
            addresses. This is typical for a load balancer or proxy that replaces the \
            client's address.",
    harm: "The filter sees only the load balancer: it allows all of its clients, or none.",
    fix: "Restrict clients at the load balancer, or make it keep the client's address. If these \
          are your clients, acknowledge the warning.",
};

const EPHEMERAL_PORT: Text = Text {
    title: "the node's own connections may start from a protected port",
    means: "The kernel may choose a protected port as the source port of a connection that this node \
            opens.",
    harm: "The replies go to a protected port. The filter drops them if the server is not listed: \
           from time to time a connection hangs.",
    fix: "Reserve the port: `sysctl -w net.ipv4.ip_local_reserved_ports=6443`. Put the same line into \
          a file in `/etc/sysctl.d`.",
};

const EXPIRED: Text = Text {
    title: "ranges have expired",
    means: "The expiry of some entries has passed. They no longer allow any source.",
    harm: "Their clients are dropped. Old entries also make the list hard to read.",
    fix: "`apifence ranges list` shows them. Remove them with `apifence ranges prune`, or add them \
          again with a later expiry.",
};

const CLUSTER_OVERLAY: Text = Text {
    title: "an overlay of the cluster's network carries pod traffic",
    means: "The device belongs to a network plugin (flannel, Calico, Cilium, OVN, Antrea, Weave). \
            Pods on other nodes reach this node through it.",
    harm: "API traffic of pods bypasses the filter here: a pod does not need an entry in the list. \
           The overlay also accepts packets from every sender that reaches its port (VXLAN: UDP \
           8472 or 4789; Geneve: UDP 6081; IPIP: protocol 4). WireGuard accepts only its peers.",
    fix: "Allow only cluster nodes to reach the overlay's port, in the cloud's security group or in \
          a firewall. To filter pods as well, guard the device: \
          `apifence attach --interface NAME`, with the pod CIDR in `cluster_cidrs`.",
};
