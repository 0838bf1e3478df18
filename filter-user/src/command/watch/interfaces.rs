//! Every interface that is to be guarded is, also when it comes back.

use std::slice;

use anyhow::Result;

use super::{
    super::attach::{attach_all, guard, refuse_foreign},
    Watch, unattended,
};
use crate::{
    datapath::{Attachment, Counters, Maps},
    net::Interface,
    output::say,
    state::{WatchLock, WriterLock},
};

impl Watch<'_> {
    /// Whether every link that is pinned still holds a program on its interface, and there is one for each that was guarded.
    pub(super) fn links_hold(&self) -> bool {
        let pins = &self.context.pins;
        let Ok(pinned) = pins.interfaces() else {
            return false;
        };
        !pinned.is_empty()
            && self.lock.holds(&pins.watch())
            && pinned.iter().all(|ifindex| {
                Attachment::read(&pins.link(*ifindex)).is_ok_and(|link| link.ifindex != 0)
            })
    }

    /// The interfaces to guard that are there: those that the settings name, or those that hold the default routes and those that have a
    /// filter already.
    pub(super) async fn wanted(&mut self) -> Result<Vec<Interface>> {
        let names = self.context.config.interfaces.to_vec();
        let mut all = self.net.interfaces().await?;
        if names.is_empty() {
            let routes = self.net.choose("watch filter on", &[]).await;
            let routes: Vec<u32> = routes
                .map(|chosen| chosen.iter().map(|interface| interface.ifindex).collect())
                .unwrap_or_default();
            let pinned = self.context.pins.interfaces()?;
            all.retain(|interface| {
                routes.contains(&interface.ifindex) || pinned.contains(&interface.ifindex)
            });
            return Ok(all);
        }
        all.retain(|interface| names.contains(&interface.name));
        for name in &names {
            if all.iter().any(|interface| interface.name == *name) {
                if self.missing.remove(name) {
                    say(format_args!("`{name}` is back"));
                }
            } else if self.missing.insert(name.clone()) {
                say(format_args!(
                    "`{name}` is not there: it is guarded as soon as it comes"
                ));
            }
        }
        Ok(all)
    }

    /// Guards every interface that is to be guarded and is not.
    pub(super) async fn guard_interfaces(&mut self) -> Result<()> {
        let wanted = self.wanted().await?;
        let pins = &self.context.pins;
        if !matches!(Maps::in_use(pins), Ok(Some(_))) {
            return self.guard_anew(wanted).await;
        }
        let open: Vec<Interface> = wanted
            .into_iter()
            .filter(|interface| {
                let link = Attachment::read(&pins.link(interface.ifindex));
                let ours = link.ok().map(|link| link.program_id);
                ours.is_none() || interface.xdp.map(|xdp| xdp.program_id) != ours
            })
            .collect();
        self.bury().await?;
        if open.is_empty() {
            return Ok(());
        }
        let _lock =
            WriterLock::take_now(&self.context.global.ranges_file, self.context.pins.root())?;
        // One that cannot be guarded keeps no other one open.
        let mut failed = None;
        for interface in open {
            let guarded = refuse_foreign(&self.context, &interface).and_then(|()| {
                let log = self.context.global.verbose;
                attach_all(&self.context, slice::from_ref(&interface), log)
            });
            match guarded {
                Ok(program) => {
                    say(format_args!("guarding `{}` again", interface.name));
                    self.attached(Some(program))?;
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Makes everything anew: the pins are gone, and the filter with them.
    async fn guard_anew(&mut self, interfaces: Vec<Interface>) -> Result<()> {
        self.context.pins.prepare()?;
        if !self.lock.holds(&self.context.pins.watch()) {
            self.lock = WatchLock::take(&self.context.pins.watch())?;
        }
        let log = self.context.global.verbose;
        let (_, program) = guard(&self.context, interfaces, None, &unattended(), log).await?;
        say("warning: pins were gone, and the filter with them: it is attached again");
        self.attached(program)?;
        self.doubt = true;
        Ok(())
    }

    /// Removes the pins of interfaces that are gone.
    async fn bury(&self) -> Result<()> {
        let pins = &self.context.pins;
        let there = self.net.interfaces().await?;
        for ifindex in pins.interfaces()? {
            // Where somebody detached the link by hand the interface is there, and its pin is taken over.
            let gone = !there.iter().any(|interface| interface.ifindex == ifindex);
            if gone && Attachment::read(&pins.link(ifindex))?.ifindex == 0 {
                pins.remove_interface(ifindex)?;
                Counters::open(&pins.maps())?.release(ifindex)?;
            }
        }
        Ok(())
    }
}
