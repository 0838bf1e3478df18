//! Files of lists and of the cluster that cannot be used are reported once, and the state of all is
//! published.

use super::state::Follower;
use crate::{
    config::Settings,
    metrics::ListHealth,
    ranges::{ListName, RangesFile},
    store::ReadLists,
};

impl Follower {
    /// Reports files of lists that cannot be used, once, and publishes the state of all. The ranges
    /// file is reported as what cannot be followed.
    pub(super) fn report_lists(&mut self, read: &ReadLists) {
        let is_faulty = |name: &ListName| read.faults.iter().any(|(faulty, _)| faulty == name);
        for (name, error) in read.faults.iter().filter(|(name, _)| !name.is_default()) {
            self.alerts.raise(&format!("list `{name}`"), error);
        }
        let mut lists = self.health.borrow().lists.clone();
        lists.retain(|name, _| name.is_of_cluster());
        for (name, file) in read.lists.iter() {
            let usable = !is_faulty(name);
            if usable && !name.is_default() {
                let matter = format!("list `{name}`");
                self.alerts.clear(&matter, &format!("{matter} can be used"));
            }
            let list = file.list();
            let expiries = list.entries().iter().map(|entry| entry.expires);
            lists.insert(name.clone(), ListHealth::of(usable, expiries));
        }
        for (name, _) in &read.faults {
            lists.entry(name.clone()).or_default();
        }
        self.alerts.retain(|matter| {
            let name = matter.strip_prefix("list `");
            let name = name.and_then(|name| name.strip_suffix('`')?.parse().ok());
            name.is_none_or(|name| lists.contains_key(&name))
        });
        self.health.send_if_modified(|health| {
            let differs = health.lists != lists;
            health.lists = lists;
            differs
        });
    }

    /// Reports files that `settings` name and that cannot be used, once, and publishes their state.
    pub(super) fn report_cluster(&mut self, read: &ReadLists, settings: &Settings) {
        let names = settings.cluster_files();
        let mut lists = self.health.borrow().lists.clone();
        lists.retain(|name, _| !name.is_of_cluster());
        let of = |name: &ListName| format!("list `{name}`");
        for name in ListName::all_of_cluster() {
            let is_named = names.contains(&name);
            self.alerts.retain(|matter| is_named || matter != of(&name));
        }
        for name in &names {
            let fault = read.faults.iter().find(|(faulty, _)| faulty == name);
            let file = read.lists.get(name);
            let matter = of(name);
            match fault {
                Some((_, error)) => self.alerts.raise(&matter, error),
                None => self.alerts.clear(&matter, &format!("{matter} can be used")),
            }
            let entries = file.into_iter().flat_map(RangesFile::entries);
            let health = ListHealth::of(fault.is_none(), entries.map(|entry| entry.expires));
            lists.insert(name.clone(), health);
        }
        self.health.send_if_modified(|health| {
            let differs = health.lists != lists;
            health.lists = lists;
            differs
        });
    }
}
