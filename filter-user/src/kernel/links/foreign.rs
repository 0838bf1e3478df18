//! Foreign XDP programs: their owners, and the hint where one is in the way.
//!
//! The names are those of the programs' functions in their sources: Cilium `bpf/bpf_xdp.c`, Calico
//! `felix/bpf-gpl/xdp.c`, Katran `balancer_kern.c`, LoxiLB `llb_kern_entry.c`, libxdp
//! `xdp-dispatcher.c` and `xsk_def_xdp_prog.c`, Suricata `ebpf/xdp_filter.c` and `xdp_lb.c`,
//! OpenShift's Ingress Node Firewall `ingress_node_firewall_kernel.c`, NetBird `prog.c`.

use crate::kernel::{
    bpf::{Unnamed, links, loaded},
    net::interface::AttachedXdp,
};

/// How many bytes of a program's name the kernel keeps (`BPF_OBJ_NAME_LEN` without the final zero).
const NAME_LEN: usize = 15;

/// The project that loads programs of these names.
struct Owner {
    /// Names; a star at the end matches anything.
    programs: &'static [&'static str],
    name: &'static str,
    /// The hint.
    hint: &'static str,
}

const OWNERS: [Owner; 9] = [
    Owner {
        programs: &["cil_xdp_entry", "bpf_xdp_entry"],
        name: "Cilium",
        hint: "do not remove it: Cilium's load balancing (or its prefilter) needs it; set `loadBalancer.acceleration=disabled` in Cilium, \
               wait until its agent has removed it, and attach again",
    },
    Owner {
        programs: &["calico_xdp_*"],
        name: "Calico",
        hint: "do not remove it: it enforces Calico's untracked policies on host endpoints; guard another interface \
               (`--interface`), or delete those policies",
    },
    Owner {
        programs: &["balancer_ingress", "xdp_root"],
        name: "Katran",
        hint: "do not remove it: it is the load balancer of this machine; guard the machines behind it instead",
    },
    Owner {
        programs: &["xdp_packet_func", "xdp_pass_func"],
        name: "LoxiLB",
        hint: "do not remove it: it is the load balancer of this machine; exclude this interface from LoxiLB, or guard the \
               machines behind it",
    },
    Owner {
        programs: &["xdp_dispatcher"],
        name: "libxdp or bpfman",
        hint: "it runs other programs: `xdp-loader status` or `bpfman list` shows them; if nothing needs them, `xdp-loader unload DEV --all` \
               removes them",
    },
    Owner {
        programs: &["xsk_def_prog"],
        name: "a process with AF_XDP sockets (DPDK, VPP, OVS)",
        hint: "do not remove it: that process receives the packets of this interface; guard another interface, or stop the process first",
    },
    Owner {
        programs: &["xdp_hashfilter", "xdp_loadfilter"],
        name: "Suricata",
        hint: "remove `xdp-filter-file` from the `af-packet` section of `suricata.yaml`, restart Suricata, and attach again",
    },
    Owner {
        programs: &["ingress_node_firewall_process"],
        name: "the Ingress Node Firewall",
        hint: "do not remove it: it enforces `IngressNodeFirewall` objects; remove this interface from their `interfaces`, and attach again",
    },
    Owner {
        programs: &["nb_xdp_prog"],
        name: "NetBird",
        hint: "NetBird needs it to share a port; guard another interface",
    },
];

/// Whether the kernel's name of a program matches `pattern`: the kernel truncates names.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern || name.len() == NAME_LEN && pattern.starts_with(name),
    }
}

fn owner(program: &str) -> Option<&'static Owner> {
    OWNERS.iter().find(|owner| {
        let mut programs = owner.programs.iter();
        programs.any(|pattern| matches(pattern, program))
    })
}

/// A foreign program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignProgram {
    /// The program, and its owner if known.
    pub what: String,
    /// The hint for it.
    pub hint: String,
}

impl ForeignProgram {
    /// The foreign program `xdp` on the interface `name` with this ifindex.
    pub fn on(name: &str, ifindex: u32, xdp: AttachedXdp) -> Self {
        let id = xdp.program_id;
        let program = match loaded(id) {
            Ok(program) => program.and_then(|program| program.name),
            Err(Unnamed) => return Self::unnamed(name, id),
        };
        let known = program.as_deref().and_then(owner);
        let what = match (&program, known) {
            (Some(program), Some(owner)) => format!(
                "the XDP program `{program}` (program {id}) of {}",
                owner.name
            ),
            (Some(program), None) => format!("the XDP program `{program}` (program {id})"),
            (None, _) => format!("the XDP program {id}"),
        };
        let hint = match known {
            Some(owner) => owner.hint.replace("DEV", name),
            None => {
                let holds = |link: &crate::kernel::bpf::Attachment| {
                    (link.ifindex, link.program_id) == (ifindex, id)
                };
                let link = links().unwrap_or_default().into_iter().find(holds);
                // `ip` cannot detach a program that a link holds.
                let off = match link {
                    Some(link) => format!("`bpftool link detach id {}`", link.link_id),
                    None => format!("`ip link set dev {name} xdp off`"),
                };
                format!(
                    "apifence does not replace other programs; `bpftool prog show id {id}` shows the processes that use it, `bpftool net` all programs; if nothing needs it, {off} removes it"
                )
            }
        };
        Self { what, hint }
    }

    /// The program `id` on the interface `name`, where the kernel keeps its name from this process.
    fn unnamed(name: &str, id: u32) -> Self {
        Self {
            what: format!("the XDP program {id} (its name needs CAP_SYS_ADMIN)"),
            hint: format!(
                "apifence does not replace other programs; `sudo apifence status` or `ip link show {name}` names it"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_known_by_the_names_that_the_kernel_keeps() {
        let name = |program: &str| owner(program).map(|owner| owner.name);
        for (program, want) in [
            ("cil_xdp_entry", Some("Cilium")),
            ("balancer_ingres", Some("Katran")),
            ("balancer_ingress", Some("Katran")),
            ("ingress_node_fi", Some("the Ingress Node Firewall")),
            ("calico_xdp_main", Some("Calico")),
            ("calico_xdp_norm", Some("Calico")),
            ("xdp_packet_func", Some("LoxiLB")),
            ("", None),
            ("xdp", None),
            ("xdp_prog_main", None),
            ("balancer", None),
            ("cil_xdp_entry2", None),
            ("passer_by", None),
        ] {
            assert_eq!(name(program), want, "{program}");
        }
    }

    /// Where the owner is known, no hint says to detach the program by hand: the cluster must stay
    /// whole.
    #[test]
    fn no_hint_takes_the_program_of_a_known_owner_off_by_force() {
        for owner in &OWNERS {
            for word in ["ip link set", "bpftool link detach", "xdp off"] {
                assert!(!owner.hint.contains(word), "{}", owner.name);
            }
        }
    }
}
