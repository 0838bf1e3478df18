//! `apifence top`: live rates of dropped and authorized packets, by source and range.
//!
//! `sample` and `lookup` read the kernel and the lists, `model` and `sources` turn samples into
//! rates, `rows` and `detail` into words. `controls`, `cursor` and `form` take the keys, `view`
//! draws, `once` prints without a screen, `add` changes a list. Only `sample`, `lookup`, `add`,
//! `live` and this file have side effects.

mod add;
mod controls;
mod cursor;
mod detail;
mod form;
mod live;
mod lookup;
mod meter;
mod model;
mod once;
mod rows;
mod sample;
mod sources;
mod view;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};

use anyhow::Result;
use tokio::time::sleep;

#[cfg(test)]
pub(crate) use self::once::Summary as Printed;
use self::{model::Model, once::Summary, sample::Sampler};
use crate::{cli::TopArgs, context::Context};

pub(crate) async fn run(context: &Context, args: &TopArgs) -> Result<u8> {
    let mut sampler = Sampler::open(context)?;
    let is_once = args.once || !context.global.output.is_text();
    if is_once || !io::stdout().is_terminal() {
        let mut model = Model::default();
        model.add(sampler.sample(false).await?);
        sleep(args.interval).await;
        model.add(sampler.sample(true).await?);
        context.global.output.write(&Summary::of(&model))?;
        return Ok(0);
    }
    live::run(context, sampler, args.interval).await?;
    Ok(0)
}
