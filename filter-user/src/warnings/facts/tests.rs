//! Each warning, and cases without one.

use filter_common::LinkHeader;

use super::*;
use crate::{codes::Acknowledgement, warnings::sorted};

fn interface(name: &str, ifindex: u32) -> Interface {
    Interface {
        name: name.to_owned(),
        other_names: Vec::new(),
        ifindex,
        xdp: None,
        up: true,
        link_type: LinkType::Filtered(LinkHeader::Ethernet),
        kind: None,
        lower: None,
        master: None,
    }
}

#[test]
fn ports_come_as_sysctl_shows_them() {
    assert_eq!(parse_ranges("32768\t60999\n"), [32768..=60999]);
    assert_eq!(parse_ranges("443,6443-6500\n"), [443..=443, 6443..=6500]);
    assert_eq!(parse_ranges("\n"), []);
}

#[test]
fn a_protected_port_in_the_ephemeral_range_is_warned_of() {
    let facts = |reserved: &str| Facts {
        ports: [443, 6443].into(),
        ephemeral: Some(1024..=65535),
        reserved: parse_ranges(reserved),
        ..Facts::default()
    };
    let warning = facts("").ephemeral_ports().expect("6443 is one");
    assert!(warning.message.contains("may use TCP 6443 "), "{warning}");
    assert_eq!(warning.objects, ["6443".to_owned()].into());
    assert_eq!(facts("6443").ephemeral_ports(), None);
}

/// A device of this kind, on top of `lower`.
fn on(name: &str, ifindex: u32, kind: InfoKind, lower: Option<u32>) -> Interface {
    Interface {
        kind: Some(kind),
        lower,
        ..interface(name, ifindex)
    }
}

/// A device that is a port of `master`.
fn port(name: &str, ifindex: u32, kind: Option<InfoKind>, master: u32) -> Interface {
    Interface {
        kind,
        master: Some(master),
        ..interface(name, ifindex)
    }
}

#[test]
fn devices_on_a_guarded_interface_are_guarded() {
    let facts = Facts {
        interfaces: vec![
            interface("eth0", 2),
            interface("eth1", 3),
            on("eth0.7", 4, InfoKind::Vlan, Some(2)),
            on("eth1.7", 5, InfoKind::Vlan, Some(3)),
            on("br0", 6, InfoKind::Bridge, None),
            port("eth2", 7, None, 6),
            on("br1", 8, InfoKind::Bridge, None),
            port("eth3", 9, None, 8),
            on("wg0", 10, InfoKind::Wireguard, None),
        ],
        // Ports of a bridge have no address.
        addresses: (2..=10)
            .filter(|ifindex| ![7, 9].contains(ifindex))
            .map(|ifindex| (ifindex, IpAddr::from([10, 0, ifindex as u8, 1])))
            .collect(),
        listeners: vec![
            "[::]:6443".parse().expect("an address"),
            "10.0.3.1:443".parse().expect("an address"),
        ],
        ..Facts::default()
    };
    let guarded = [2, 7].into();
    let messages = |warnings: Vec<Warning>| -> Vec<String> {
        let messages = warnings.into_iter().map(|warning| warning.message);
        messages.collect()
    };
    assert_eq!(
        messages(facts.unguarded_listeners(&guarded)),
        [
            "TCP 6443 is reachable through `br1`, which has no filter",
            "TCP 443, 6443 are reachable through `eth1`, which has no filter",
            "TCP 6443 is reachable through `eth1.7`, which has no filter",
        ]
    );
    assert_eq!(
        messages(facts.tunnels(&guarded)),
        ["tunnel `wg0` (wireguard) has no filter: API traffic inside it is not filtered"]
    );
    assert_eq!(facts.tunnels(&[10].into()), []);
}

/// A node with Docker; flannel, Calico or Cilium; kube-proxy with IPVS; and a DNS cache.
#[test]
fn devices_for_traffic_of_the_node_alone_cause_no_warning() {
    let bridge = |name, ifindex| on(name, ifindex, InfoKind::Bridge, None);
    let veth = |name, ifindex, master| port(name, ifindex, Some(InfoKind::Veth), master);
    let netkit = InfoKind::Other("netkit".to_owned());
    let mut interfaces = vec![
        interface("lo", 1),
        interface("eth0", 2),
        bridge("cni0", 3),
        veth("veth7f3a", 4, 3),
        veth("veth91bc", 5, 3),
        bridge("docker0", 6),
        on("cali0123", 7, InfoKind::Veth, None),
        on("cilium_host", 8, InfoKind::Veth, None),
        on("lxc_health", 9, netkit, None),
        on("kube-ipvs0", 10, InfoKind::Dummy, None),
        on("nodelocaldns", 11, InfoKind::Dummy, None),
    ];
    let facts = |interfaces: &[Interface]| Facts {
        interfaces: interfaces.to_vec(),
        addresses: interfaces
            .iter()
            .map(|found| (found.ifindex, IpAddr::from([10, 0, found.ifindex as u8, 1])))
            .collect(),
        listeners: vec!["[::]:6443".parse().expect("an address")],
        ..Facts::default()
    };
    let guarded = [2].into();
    assert_eq!(facts(&interfaces).warnings(&guarded), []);
    // A pair, or a bridge over one, may be the uplink of a node that is a container.
    interfaces.push(on("eth1", 12, InfoKind::Veth, None));
    interfaces.push(bridge("br0", 13));
    interfaces.push(veth("eth2", 14, 13));
    interfaces.push(bridge("br1", 15));
    interfaces.push(veth("veth1", 16, 15));
    interfaces.push(port("eth3", 17, None, 15));
    interfaces.push(on("bond0", 18, InfoKind::Bond, None));
    let warned = facts(&interfaces).warnings(&guarded);
    let names: Vec<&str> = warned
        .iter()
        .filter_map(|warning| warning.interface.as_deref())
        .collect();
    assert_eq!(names, ["bond0", "br0", "br1", "eth1", "eth2", "eth3"]);
    for warning in &warned {
        assert_eq!(warning.code, Code::UnguardedListener, "{warning}");
    }
}

/// Known overlays share one warning. A device with another name or kind is a tunnel.
/// Devices of cluster networks.
fn overlays() -> [(&'static str, InfoKind); 14] {
    let ovs = || InfoKind::Other("openvswitch".to_owned());
    [
        ("flannel.1", InfoKind::Vxlan),
        ("flannel.4096", InfoKind::Vxlan),
        ("flannel-v6.1", InfoKind::Vxlan),
        ("flannel-wg", InfoKind::Wireguard),
        ("vxlan.calico", InfoKind::Vxlan),
        ("wireguard.cali", InfoKind::Wireguard),
        ("tunl0", InfoKind::IpIp),
        ("cilium_vxlan", InfoKind::Vxlan),
        ("cilium_geneve", InfoKind::Geneve),
        ("cilium_wg0", InfoKind::Wireguard),
        ("genev_sys_6081", InfoKind::Geneve),
        ("ovn-k8s-mp0", ovs()),
        ("antrea-gw0", ovs()),
        ("vxlan-6784", InfoKind::Vxlan),
    ]
}

fn with_devices(devices: &[(&str, InfoKind)]) -> Facts {
    Facts {
        interfaces: devices
            .iter()
            .zip(10..)
            .map(|((name, kind), ifindex)| on(name, ifindex, kind.clone(), None))
            .collect(),
        ..Facts::default()
    }
}

#[test]
fn known_overlays_are_distinguished_from_other_tunnels() {
    let holes = [
        ("vx0", InfoKind::Vxlan),
        ("flannel.", InfoKind::Vxlan),
        ("flannel.1x", InfoKind::Vxlan),
        ("flannel.1", InfoKind::Tun),
        ("cilium_vxlan", InfoKind::GreTap),
        ("cilium_vxlan2", InfoKind::Vxlan),
        ("tunl1", InfoKind::IpIp),
        ("tailscale0", InfoKind::Tun),
        ("wg0", InfoKind::Wireguard),
        ("antrea-gw0", InfoKind::Vxlan),
    ];
    for device in overlays() {
        let warned = with_devices(std::slice::from_ref(&device)).warnings(&[].into());
        let [warning] = &warned[..] else {
            panic!("{device:?}: {warned:?}");
        };
        assert_eq!(warning.code, Code::ClusterOverlay, "{device:?}");
        assert_eq!(warning.interface.as_deref(), Some(device.0));
        assert!(warning.to_string().starts_with("info: "), "{warning}");
    }
    for device in holes {
        let warned = with_devices(std::slice::from_ref(&device)).warnings(&[].into());
        let [warning] = &warned[..] else {
            panic!("{device:?}: {warned:?}");
        };
        assert_eq!(warning.code, Code::Tunnel, "{device:?}");
    }
}

#[test]
fn overlays_are_warned_of_together() {
    let all = with_devices(&overlays());
    let warned = all.warnings(&[].into());
    let [warning] = &warned[..] else {
        panic!("{warned:?}");
    };
    assert_eq!((warning.objects.len(), &warning.interface), (14, &None));
    // It leaves out devices with a filter, and those that are down.
    let guarded = (11..24).collect();
    let warned = all.warnings(&guarded);
    assert_eq!(warned[0].interface.as_deref(), Some("flannel.1"));
    let mut down = with_devices(&overlays()[..1]);
    down.interfaces[0].up = false;
    assert_eq!(down.warnings(&[].into()), []);
}

/// A tap device is a virtual machine's network card on a bridge of libvirt; elsewhere it may be a
/// VPN.
#[test]
fn virtual_machines_on_a_bridge_are_not_tunnels() {
    let facts = |bridge: &str, tap: &str| Facts {
        interfaces: vec![
            on(bridge, 2, InfoKind::Bridge, None),
            port(tap, 3, Some(InfoKind::Tun), 2),
        ],
        addresses: vec![(2, IpAddr::from([192, 168, 122, 1]))],
        listeners: vec!["[::]:6443".parse().expect("an address")],
        ..Facts::default()
    };
    assert_eq!(facts("virbr0", "vnet0").warnings(&[].into()), []);
    for (bridge, tap) in [("br0", "vnet0"), ("virbr0", "tap0"), ("virbr0", "vnet")] {
        let warned = facts(bridge, tap).warnings(&[].into());
        let codes: Vec<Code> = warned.iter().map(|warning| warning.code).collect();
        assert_eq!(codes, [Code::UnguardedListener, Code::Tunnel], "{tap}");
    }
}

#[test]
fn warnings_are_sorted_by_severity_and_acknowledged_one_by_one() {
    let known = |text: &str| Acknowledgement::parse(text).expect(text);
    let warnings = || {
        vec![
            Warning::new(Code::ClusterOverlay, "a", "b").on("flannel.1"),
            Warning::new(Code::Tunnel, "a", "b").on("wg0"),
            Warning::new(Code::Tunnel, "a", "b").on("wg1"),
            Warning::new(Code::Everyone, "a", "b").about(["::/0"]),
        ]
    };
    let reported = |known: &[Acknowledgement]| -> Vec<String> {
        let sorted = sorted(warnings(), known).into_iter();
        let reported = sorted.filter(|warning| !warning.acknowledged);
        reported
            .map(|warning| format!("{} {:?}", warning.code, warning.objects))
            .collect()
    };
    let all = [
        "W03 {\"::/0\"}",
        "W08 {\"wg0\"}",
        "W08 {\"wg1\"}",
        "W15 {\"flannel.1\"}",
    ];
    assert_eq!(reported(&[]), all);
    assert_eq!(
        reported(&[known("W08:wg0"), known("W15")]),
        [all[0], all[2]]
    );
    assert_eq!(reported(&[known("tunnel")]), [all[0], all[3]]);
}

#[test]
fn listeners_outside_the_destinations_are_warned_of() {
    let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let facts = |destinations: &[&str], listener: &str| Facts {
        destinations: destinations
            .iter()
            .map(|text| text.parse().expect("a range"))
            .collect(),
        interfaces: vec![interface("eth0", 2), on("cali1", 3, InfoKind::Veth, None)],
        addresses: vec![
            (2, ip("192.0.2.1")),
            (2, ip("2001:db8::1")),
            (2, ip("fe80::1")),
            (3, ip("fe80::2")),
            (3, ip("10.0.0.1")),
        ],
        listeners: vec![listener.parse().expect("an address and a port")],
        ..Facts::default()
    };
    for (destinations, listener, want) in [
        (&[][..], "[::]:6443", ""),
        (
            &["192.0.2.1/32"],
            "[::]:6443",
            "10.0.0.1, 2001:db8::1, fe80::1",
        ),
        (&["192.0.2.1/32"], "0.0.0.0:6443", "10.0.0.1"),
        (&["192.0.2.1/32"], "192.0.2.1:6443", ""),
        (&["192.0.2.1/32"], "[2001:db8::1]:6443", "2001:db8::1"),
        (&["192.0.2.0/24"], "127.0.0.1:6443", ""),
        (&["0.0.0.0/0", "::/0"], "[::]:6443", ""),
    ] {
        let warned = facts(destinations, listener).outside_destinations(&[2].into());
        match &warned[..] {
            [] => assert_eq!(want, "", "{listener}"),
            [warning] => assert!(
                warning.message.starts_with(&format!(
                    "TCP 6443 is open to every source on {want}, outside"
                )),
                "{warning}"
            ),
            more => panic!("{more:?}"),
        }
    }
}

#[test]
fn many_connections_from_few_sources_are_warned_of() {
    let connections = |sources: u8| {
        let connection = |number: u8| Connection {
            remote: SocketAddr::from((
                [198, 51, 100, number % sources],
                40_000 + u16::from(number),
            )),
            local: SocketAddr::from(([192, 0, 2, 1], 6443)),
        };
        Facts {
            connections: (0..12).map(connection).collect(),
            ..Facts::default()
        }
    };
    assert!(connections(2).hidden_clients().is_some());
    assert_eq!(connections(3).hidden_clients(), None);
}
