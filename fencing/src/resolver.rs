//! The names of power devices, looked up aside: a library that looks a name up takes a thread for as long as its name server is silent,
//! also when whoever asked has long given it up.

use std::{error::Error, ffi::OsString, net::ToSocketAddrs as _};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::aside::NAMES;

/// Looks names up as the system does, few at once.
pub(crate) struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(look_up(name.as_str().to_owned()))
    }
}

async fn look_up(name: String) -> Result<Addrs, Box<dyn Error + Send + Sync>> {
    let thing = OsString::from(name.as_str());
    // The port is that of the URL.
    let look = move || (name.as_str(), 0_u16).to_socket_addrs();
    let addresses = NAMES.run(&thing, look).await??;
    Ok(Box::new(addresses))
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, time::Duration};

    use holdfast_policies::model::TlsTrust;
    use tokio::time::timeout;

    use super::*;
    use crate::{aside::tests::hanging, tls};

    /// Long enough for any machine.
    const LIMIT: Duration = Duration::from_secs(20);
    /// For what is not to end.
    const SHORT: Duration = Duration::from_millis(50);

    /// As while a rack is dark, and the name server in it: its hosts' devices are asked again every few seconds, and each look lasts for
    /// half a minute.
    #[tokio::test]
    async fn a_device_whose_name_is_not_told_holds_few_threads_however_often_it_is_asked() {
        let client = tls::client(&TlsTrust::Fingerprint("00".repeat(32))).await.unwrap();
        // Nobody listens there.
        let ask = || client.get("https://localhost:1/").send();
        let held = hanging(&NAMES, OsStr::new("localhost")).await;
        assert!(timeout(SHORT, ask()).await.is_err(), "it was looked up beside all places");
        drop(held);
        let refused = timeout(LIMIT, ask()).await.expect("it is looked up again").unwrap_err();
        assert!(refused.is_connect(), "{refused:?}");
    }
}
