//! The lanes' threads.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};

use tidewire_broker::{Broker, Vital};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::LocalSet;

use crate::hub::{Hub, HubSettings};
use crate::inbox::{Inbox, Op};
use crate::lane::{Lane, LaneSettings};

/// Reaches a lane from any thread.
#[derive(Clone)]
pub struct LaneHandle {
    inbox: Arc<Inbox>,
    runtime: Handle,
}

impl LaneHandle {
    /// Does this on the lane's thread, after what waits there. The closure may spawn local tasks.
    pub fn run(&self, work: impl FnOnce(&Rc<Lane>) + Send + 'static) {
        self.inbox.push(Op::Run(Box::new(work)));
    }

    /// The runtime of the lane's thread, for tasks that hand it much: what they find, the lane writes
    /// without another thread having to be woken. They end with the lane.
    #[must_use]
    pub const fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

/// All lanes of the node, and the hub that feeds them.
pub struct Lanes {
    hub: Arc<Hub>,
    handles: Vec<LaneHandle>,
    threads: Vec<JoinHandle<()>>,
    sessions: Arc<SessionCount>,
}

/// How many sessions there are on all lanes.
#[derive(Default)]
pub(crate) struct SessionCount {
    count: AtomicUsize,
    none_left: Notify,
}

impl SessionCount {
    pub(crate) fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self) {
        if self.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.none_left.notify_waiters();
        }
    }
}

impl Lanes {
    /// Starts `count` lanes (at least one), each an operating-system thread with a runtime of its
    /// own.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    pub fn start(
        count: usize,
        broker: Arc<dyn Broker>,
        hub: HubSettings,
        lane: LaneSettings,
    ) -> io::Result<Self> {
        let room = Arc::new(Notify::new());
        let inboxes: Box<[_]> =
            (0..count.max(1)).map(|_| Arc::new(Inbox::new(room.clone()))).collect();
        let hub = Hub::new(broker, inboxes.clone(), room, hub);
        let sessions = Arc::<SessionCount>::default();
        let (mut handles, mut threads) = (Vec::new(), Vec::new());
        for (id, inbox) in inboxes.iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            handles.push(LaneHandle { inbox: inbox.clone(), runtime: runtime.handle().clone() });
            let (inbox, hub, sessions) = (inbox.clone(), hub.clone(), sessions.clone());
            let thread = Builder::new().name(format!("lane-{id}")).spawn(move || {
                let _vital = Vital::new("lane");
                let lane = Lane::new(id, hub, sessions, lane);
                let tasks = LocalSet::new();
                // The sweep and all sessions end when the set is dropped.
                tasks.spawn_local(Vital::task("sweep", lane.clone().sweep()));
                tasks.block_on(&runtime, lane.work(&inbox));
            })?;
            threads.push(thread);
        }
        Ok(Self { hub, handles, threads, sessions })
    }

    /// The hub.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The lanes.
    #[must_use]
    pub fn handles(&self) -> &[LaneHandle] {
        &self.handles
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.count.load(Ordering::Relaxed)
    }

    /// Resolves once no session is left.
    pub async fn empty(&self) {
        loop {
            let none_left = self.sessions.none_left.notified();
            tokio::pin!(none_left);
            none_left.as_mut().enable();
            if self.sessions() == 0 {
                return;
            }
            none_left.await;
        }
    }

    /// Ends all lanes with everything on them, and waits for their threads.
    pub fn stop(self) {
        for handle in &self.handles {
            handle.inbox.push(Op::Stop);
        }
        for thread in self.threads {
            // A lane that panicked has said so on stderr; the others still end.
            let _ = thread.join();
        }
    }
}
