//! The initial file system of a machine: an archive of the kind that `cpio -H newc` makes, which
//! the kernel unpacks into memory.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::kernels::Fetched;
use crate::{debian::Suite, target::Target};

/// The suite of the guest's programs.
const SUITE: &str = "trixie";

/// Programs of Debian packages.
pub(super) struct Toolset {
    /// The name of its directory.
    name: &'static str,
    /// The packages of the programs, with the libraries that these need.
    packages: &'static [&'static str],
    /// The programs.
    programs: &'static [&'static str],
}

/// What every guest uses.
pub(super) const TOOLS: Toolset = Toolset {
    name: "tools",
    packages: &[
        "busybox-static",
        "iproute2",
        "libbpf1",
        "libc6",
        "libcap2",
        "libelf1t64",
        "libmnl0",
        "libpcre2-8-0",
        "libselinux1",
        "libzstd1",
        "wireguard-tools",
        "zlib1g",
    ],
    programs: &["usr/bin/busybox", "usr/bin/ip", "usr/bin/wg"],
};

/// Traffic generators.
pub(super) const GENERATORS: Toolset = Toolset {
    name: "generators",
    packages: &[
        "hping3",
        "libdbus-1-3",
        "libnl-3-200",
        "libnl-genl-3-200",
        "libpcap0.8t64",
        "libsystemd0",
        "libtcl8.6",
        "libxdp1",
        "netsniff-ng",
        "xdp-tools",
    ],
    programs: &[
        "usr/sbin/hping3",
        "usr/sbin/trafgen",
        "usr/sbin/xdp-trafficgen",
    ],
};

/// Modules that the cases use, if the kernel has them and not built in.
const MODULES: [&str; 21] = [
    "veth",
    "tun",
    "bonding",
    "8021q",
    "bridge",
    "macvlan",
    "dummy",
    "wireguard",
    "ipip",
    "ip_gre",
    "sit",
    "inet_diag",
    "tcp_diag",
    "nf_tables",
    "nfnetlink",
    "pktgen",
    "virtio_pci",
    "virtio_net",
    "vmxnet3",
    "e1000e",
    "igb",
];

/// Mounts, loads the modules, runs the guest's program, powers off.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox mount -t tmpfs tmpfs /tmp
busybox mount -t bpf bpf /sys/fs/bpf
for module in $(busybox cat /modules/order); do
    busybox insmod "/modules/$module" || echo "vm: module $module is not loaded"
done
ip link set lo up
export APIFENCE_BIN=/bin/apifence RUST_BACKTRACE=0
vm-guest $(busybox cat /role)
echo "vm-end $?"
busybox poweroff -f
"#;

/// The directories of the programs of `toolsets`; fetches those that are not there.
pub(super) fn tools(
    directory: &Path,
    arch: Target,
    toolsets: &[&'static Toolset],
) -> Result<Vec<(PathBuf, &'static Toolset)>> {
    let fetch = |toolset: &&'static Toolset| {
        let tools = directory.join(format!("{}-{}", toolset.name, arch.debian()));
        if !tools.is_dir() {
            Suite::open(directory, SUITE, arch)?.extract(toolset.packages, &tools)?;
        }
        Ok((tools, *toolset))
    };
    toolsets.iter().map(fetch).collect()
}

/// Makes the initial file system for a kernel: `tools` has the guest's programs, `programs` are
/// static programs of ours, `role` is what `vm-guest` runs.
pub(super) fn make(
    tools: &[(PathBuf, &'static Toolset)],
    arch: Target,
    kernel: &Fetched,
    programs: &[PathBuf],
    role: &str,
) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for name in [
        "bin", "lib", "lib64", "modules", "proc", "sys", "dev", "tmp", "run", "etc", "var",
    ] {
        archive.add(name, DIRECTORY, &[]);
    }
    archive.add("init", PROGRAM, INIT.as_bytes());
    archive.add("role", FILE, role.as_bytes());
    let of_debian = tools
        .iter()
        .flat_map(|(tools, toolset)| toolset.programs.iter().map(|path| tools.join(path)));
    for program in of_debian.chain(programs.iter().cloned()) {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        archive.add(&format!("bin/{name}"), PROGRAM, &read(&program)?);
    }
    let loader = arch.loader().trim_start_matches('/');
    let loader_name = loader.rsplit('/').next().unwrap_or_default();
    for (tools, _) in tools {
        for base in ["lib", "usr/lib"] {
            let libraries = tools.join(base).join(arch.libraries());
            add_libraries(&mut archive, &libraries)?;
            let path = libraries.join(loader_name);
            if path.exists() {
                archive.add(loader, PROGRAM, &read(&path)?);
            }
        }
    }
    let mut order = String::new();
    for path in modules(&kernel.modules)? {
        let name = path.rsplit('/').next().unwrap_or_default();
        let (name, content) = match name.strip_suffix(".xz") {
            Some(plain) => (plain, unpacked(&kernel.modules.join(&path))?),
            None => (name, read(&kernel.modules.join(&path))?),
        };
        order += &format!("{name}\n");
        archive.add(&format!("modules/{name}"), FILE, &content);
    }
    archive.add("modules/order", FILE, order.as_bytes());
    Ok(archive.finish())
}

/// Adds the shared libraries of a directory, if it is there.
fn add_libraries(archive: &mut Archive, directory: &Path) -> Result<()> {
    if !directory.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.contains(".so") || kind.is_dir() {
            continue;
        }
        let inside = format!("lib/{name}");
        if kind.is_symlink() {
            let target = fs::read_link(&path)?;
            archive.add(&inside, LINK, target.as_os_str().as_encoded_bytes());
        } else {
            archive.add(&inside, PROGRAM, &read(&path)?);
        }
    }
    Ok(())
}

/// The paths of [`MODULES`] and of the modules that they need, each after those that it needs.
fn modules(directory: &Path) -> Result<Vec<String>> {
    let table = directory.join("modules.dep");
    let table =
        fs::read_to_string(&table).with_context(|| format!("read `{}`", table.display()))?;
    let mut paths: Vec<String> = Vec::new();
    for module in MODULES {
        let is_it = |path: &str| {
            let name = path.rsplit('/').next().unwrap_or_default();
            name.split('.').next() == Some(module)
        };
        let line = table.lines().filter_map(|line| line.split_once(':'));
        let Some((path, needs)) = line.clone().find(|(path, _)| is_it(path)) else {
            continue;
        };
        // The table names what is needed last first.
        let needs = needs.split_whitespace().rev();
        for path in needs.chain([path]) {
            if !paths.iter().any(|known| known == path) {
                paths.push(path.to_owned());
            }
        }
    }
    Ok(paths)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read `{}`", path.display()))
}

/// The content of a compressed file.
fn unpacked(path: &Path) -> Result<Vec<u8>> {
    let output = Command::new("xz")
        .arg("-dc")
        .arg(path)
        .output()
        .context("run `xz`")?;
    ensure!(output.status.success(), "unpack `{}`", path.display());
    Ok(output.stdout)
}

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive in the format that the kernel reads
/// (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
}

impl Archive {
    /// Adds a file, a directory or a symbolic link, by its path from the root.
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        if self.names.insert(name.to_owned()) {
            self.entry(name, mode, content);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        let inode = self.names.len() as u32;
        let (size, name_size) = (content.len() as u32, name.len() as u32 + 1);
        // Magic, inode, mode, user, group, links, time, size, four device numbers, size of the
        // name, check sum.
        let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    /// Headers and contents start at multiples of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_header_name_and_content_at_multiples_of_four() {
        let mut archive = Archive::default();
        archive.add("init", PROGRAM, b"hello");
        archive.add("init", FILE, b"again");
        let bytes = archive.finish();
        assert_eq!(&bytes[..6], b"070701");
        // The mode, and the sizes of content and name.
        assert_eq!(&bytes[14..22], b"000081ed");
        assert_eq!(
            (&bytes[54..62], &bytes[94..102]),
            (&b"00000005"[..], &b"00000005"[..])
        );
        assert_eq!(
            (&bytes[110..115], &bytes[116..121]),
            (&b"init\0"[..], &b"hello"[..])
        );
        assert_eq!(&bytes[124..130], b"070701");
        assert!(bytes.len().is_multiple_of(4));
        assert!(String::from_utf8_lossy(&bytes).contains("TRAILER!!!"));
    }
}
