//! The counters of all interfaces, and the row of each interface.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use bytemuck::Zeroable as _;
use filter_common::{
    COUNTERS_PER_INTERFACE, Verdict,
    layout::{COUNTERS, Counter, INTERFACES, InterfaceRow, InterfaceRows, MAX_INTERFACES},
};
use netlink_packet_route::link::InfoKind;

use super::slot::open_data;
use crate::{
    kernel::net::interface::Interface,
    ui::{error::UserError, explain::explain},
};

/// One counter of an interface.
#[derive(Clone, Copy, Debug)]
pub struct CounterRow {
    /// The verdict that it counts.
    pub verdict: Verdict,
    /// The sum over all CPUs.
    pub counter: Counter,
}

/// A counter as aya moves it.
type Bytes = [u8; size_of::<Counter>()];

/// The counters, opened from their pins.
pub struct Counters {
    interfaces: Array<MapData, [u8; size_of::<InterfaceRows>()]>,
    counters: PerCpuArray<MapData, Bytes>,
}

impl Counters {
    /// Opens those pinned in `directory`.
    ///
    /// # Errors
    /// If they are not there, or the kernel refuses.
    pub fn open(directory: &Path) -> Result<Self> {
        let failed = |error: MapError| explain("open counters", &error);
        Ok(Self {
            interfaces: Map::Array(open_data(directory, INTERFACES)?)
                .try_into()
                .map_err(failed)?,
            counters: Map::PerCpuArray(open_data(directory, COUNTERS)?)
                .try_into()
                .map_err(failed)?,
        })
    }

    /// The counters of an interface, summed over the CPUs; `None` if it has no row.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn read(&self, ifindex: u32) -> Result<Option<Vec<CounterRow>>> {
        let Some(row) = own_row(&self.rows()?, ifindex) else {
            return Ok(None);
        };
        let read = |verdict: Verdict| {
            let values = self
                .counters
                .get(&InterfaceRows::index(row, verdict.index()), 0)
                .map_err(|error| explain("read counters", &error))?;
            let mut sum = Counter::default();
            for value in values.iter() {
                let counter: Counter = bytemuck::pod_read_unaligned(value);
                sum.packets += counter.packets;
                sum.bytes += counter.bytes;
            }
            let counter = sum;
            Ok(CounterRow { verdict, counter })
        };
        Verdict::all().map(read).collect::<Result<_>>().map(Some)
    }

    /// Gives an interface a row of counters, before the program sees its first packet. An existing
    /// row of its own is kept, with its counters.
    ///
    /// # Errors
    /// If every row is taken, or the kernel refuses.
    pub fn claim(&mut self, ifindex: u32) -> Result<()> {
        let mut rows = self.rows()?;
        if own_row(&rows, ifindex).is_some() {
            return Ok(());
        }
        // It may have an entry as a port.
        let Some(row) = rows.entry(ifindex).or_else(|| free_entry(&rows, ifindex)) else {
            return Err(UserError::failed(
                format!("count packets: {MAX_INTERFACES} interfaces have counters already"),
                "`apifence detach --interface NAME` frees the counters of one",
            ));
        };
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| explain("count CPUs", &error))?;
        for slot in 0..COUNTERS_PER_INTERFACE {
            let zeros = PerCpuValues::try_from(vec![Bytes::zeroed(); cpus])
                .context("make counters for each CPU")?;
            self.counters
                .set(InterfaceRows::index(row, slot), zeros, 0)
                .map_err(|error| explain("reset counters", &error))?;
        }
        rows.entries[row as usize] = InterfaceRow { ifindex, offset: 0 };
        self.write(&rows)
    }

    /// Counts the packets of the ports of each bond under the bond, if it has a row; `interfaces`
    /// is the current list. A port with a filter of its own keeps its own row. Ports for which no
    /// entry is free stay uncounted; they are filtered all the same.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn count_ports(&mut self, interfaces: &[Interface]) -> Result<()> {
        let before = self.rows()?;
        let rows = with_ports(&before, interfaces);
        if rows == before {
            return Ok(());
        }
        self.write(&rows)
    }

    /// Frees the row of an interface that no longer has a filter.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn release(&mut self, ifindex: u32) -> Result<()> {
        let mut rows = self.rows()?;
        let Some(row) = own_row(&rows, ifindex) else {
            return Ok(());
        };
        let before = rows;
        for (number, entry) in (0..).zip(&mut rows.entries) {
            if before.row_of(number) == row {
                *entry = InterfaceRow::zeroed();
            }
        }
        self.write(&rows)
    }

    fn rows(&self) -> Result<InterfaceRows> {
        let bytes = self
            .interfaces
            .get(&0, 0)
            .map_err(|error| explain("read counters", &error))?;
        Ok(bytemuck::pod_read_unaligned(&bytes))
    }

    fn write(&mut self, rows: &InterfaceRows) -> Result<()> {
        let mut bytes = [0; size_of::<InterfaceRows>()];
        bytes.copy_from_slice(bytemuck::bytes_of(rows));
        self.interfaces
            .set(0, bytes, 0)
            .map_err(|error| explain("assign counters", &error))
    }
}

/// The row of an interface with a filter of its own.
fn own_row(rows: &InterfaceRows, ifindex: u32) -> Option<u32> {
    let entry = rows.entry(ifindex)?;
    (rows.row_of(entry) == entry).then_some(entry)
}

/// The entry to take for an interface.
fn free_entry(rows: &InterfaceRows, ifindex: u32) -> Option<u32> {
    let home = InterfaceRows::home(ifindex);
    (0..MAX_INTERFACES)
        .map(|step| (home + step) % MAX_INTERFACES)
        .find(|entry| rows.entries[*entry as usize].ifindex == 0)
}

/// The rows with an entry for each port of a bond that has a row, and for no other port.
fn with_ports(before: &InterfaceRows, interfaces: &[Interface]) -> InterfaceRows {
    let rows_of_ports: BTreeMap<u32, u32> = bond_ports(interfaces)
        .filter_map(|(port, bond)| Some((port, own_row(before, bond)?)))
        .collect();
    let mut rows = *before;
    for (number, entry) in (0..).zip(&mut rows.entries) {
        let row = before.row_of(number);
        if row != number && rows_of_ports.get(&entry.ifindex) != Some(&row) {
            *entry = InterfaceRow::zeroed();
        }
    }
    for (ifindex, row) in rows_of_ports {
        if rows.entry(ifindex).is_none()
            && let Some(entry) = free_entry(&rows, ifindex)
        {
            let offset = row.wrapping_sub(entry) % MAX_INTERFACES;
            rows.entries[entry as usize] = InterfaceRow { ifindex, offset };
        }
    }
    rows
}

/// The ports of each bond, with the ifindex of the bond.
fn bond_ports(interfaces: &[Interface]) -> impl Iterator<Item = (u32, u32)> {
    let is_bond = |ifindex: &u32| {
        let mut found = interfaces.iter().filter(|found| found.ifindex == *ifindex);
        found.any(|found| matches!(found.kind, Some(InfoKind::Bond)))
    };
    interfaces
        .iter()
        .filter_map(move |port| Some((port.ifindex, port.master.filter(is_bond)?)))
}

#[cfg(test)]
mod tests {
    use filter_common::LinkHeader;

    use super::*;
    use crate::kernel::net::link_type::LinkType;

    fn interface(ifindex: u32, kind: Option<InfoKind>, master: Option<u32>) -> Interface {
        Interface {
            name: format!("if{ifindex}"),
            other_names: Vec::new(),
            ifindex,
            xdp: None,
            up: true,
            link_type: LinkType::Filtered(LinkHeader::Ethernet),
            kind,
            lower: None,
            master,
        }
    }

    /// Rows of their own for `guarded`.
    fn rows(guarded: &[u32]) -> InterfaceRows {
        let mut rows = InterfaceRows::zeroed();
        for &ifindex in guarded {
            let entry = free_entry(&rows, ifindex).expect("one is free");
            rows.entries[entry as usize].ifindex = ifindex;
        }
        rows
    }

    #[test]
    fn the_ports_of_a_guarded_bond_count_in_its_row() {
        let rows = rows(&[5, 9]);
        // The home of port 133 is that of the bond; the last entry is the home of port 127.
        let interfaces = [
            interface(5, Some(InfoKind::Bond), None),
            interface(133, None, Some(5)),
            interface(127, None, Some(5)),
            interface(9, None, Some(5)),
            interface(6, Some(InfoKind::Bond), None),
            interface(20, None, Some(6)),
            interface(7, Some(InfoKind::Bridge), None),
            interface(21, None, Some(7)),
        ];
        let with = with_ports(&rows, &interfaces);
        for port in [5, 133, 127] {
            assert_eq!(with.row(port), 5, "{port}");
        }
        assert_eq!(with.row(9), 9, "a port with a filter of its own");
        for other in [6, 20, 7, 21] {
            assert_eq!(with.row(other), InterfaceRows::NO_ROW, "{other}");
        }
        assert_eq!(own_row(&with, 133), None);
        assert_eq!(with_ports(&with, &interfaces), with);
    }

    #[test]
    fn a_port_that_leaves_its_bond_loses_its_row() {
        let mut interfaces = [
            interface(5, Some(InfoKind::Bond), None),
            interface(6, Some(InfoKind::Bond), None),
            interface(20, None, Some(5)),
        ];
        let guarded = rows(&[5, 6]);
        let with = with_ports(&guarded, &interfaces);
        interfaces[2].master = Some(6);
        let moved = with_ports(&with, &interfaces);
        assert_eq!((with.row(20), moved.row(20)), (5, 6));
        interfaces[2].master = None;
        assert_eq!(with_ports(&moved, &interfaces), guarded);
        assert_eq!(with_ports(&moved, &interfaces[..2]), guarded);
    }

    #[test]
    fn a_full_table_leaves_ports_uncounted() {
        let guarded: Vec<u32> = (1..=MAX_INTERFACES).collect();
        let full = rows(&guarded);
        let interfaces = [
            interface(5, Some(InfoKind::Bond), None),
            interface(500, None, Some(5)),
        ];
        assert_eq!(with_ports(&full, &interfaces), full);
    }
}
