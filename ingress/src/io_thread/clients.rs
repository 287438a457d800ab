//! Which client has which connections, and how many it may have.

use std::collections::HashMap;

use crate::http2::bounds::budget::Budgets;
use crate::http2::bounds::client::Client;
use crate::io_thread::io::Io;

/// How many of a client's newest connections are looked at for one without a call.
const NEWEST_LOOKED_AT: usize = 64;

/// Whether a client may have another connection.
#[derive(PartialEq, Eq, Debug)]
pub enum Room {
    /// It may have one at once.
    Free,
    /// It may, once a connection of this client is closed, which has the most.
    Of(Client),
    /// It may not: it has its share, or as many as everybody else.
    Taken,
}

/// The connections of one client, oldest first, and what they may have inside together.
struct Connections {
    tokens: Vec<u64>,
    budgets: Budgets,
}

/// All clients that have connections.
pub struct Clients {
    connections_max: usize,
    client_connections_max: usize,
    clients: HashMap<Client, Connections>,
}

impl Clients {
    /// No client yet. The bounds are those of all connections, and of one client's.
    pub fn new(connections_max: usize, client_connections_max: usize) -> Clients {
        Clients {
            connections_max,
            client_connections_max,
            clients: HashMap::new(),
        }
    }

    /// Whether a client may have another connection while `open` are open in all.
    pub fn room(&self, client: Client, open: usize) -> Room {
        let own = self.clients.get(&client).map_or(0, |entry| entry.tokens.len());
        if own >= self.client_connections_max {
            return Room::Taken;
        }
        if open < self.connections_max {
            return Room::Free;
        }
        // All places are taken: the client with the most gives one up, if it still has no less then.
        let biggest = self.clients.iter().max_by_key(|(_, entry)| entry.tokens.len());
        match biggest {
            Some((biggest, entry)) if entry.tokens.len() > own + 1 => Room::Of(*biggest),
            _ => Room::Taken,
        }
    }

    /// Note a client's new connection. Returns the client's budgets.
    pub fn add(&mut self, client: Client, token: u64, worker: &Budgets) -> &Budgets {
        let entry = self.clients.entry(client).or_insert_with(|| Connections {
            tokens: Vec::new(),
            budgets: worker.client(),
        });
        entry.tokens.push(token);
        &entry.budgets
    }

    /// Note that a client's connection is closed.
    pub fn remove(&mut self, client: Client, token: u64) {
        if let Some(entry) = self.clients.get_mut(&client) {
            entry.tokens.retain(|open| *open != token);
            if entry.tokens.is_empty() {
                self.clients.remove(&client);
            }
        }
    }

    /// A client's newest connections, newest first.
    pub fn newest(&self, client: Client) -> Vec<u64> {
        let tokens = self.clients.get(&client).map_or(&[][..], |entry| &entry.tokens);
        tokens.iter().rev().take(NEWEST_LOOKED_AT).copied().collect()
    }
}

impl Io {
    /// Close a connection of this client: among its newest ones one without a call, else the newest.
    pub(super) fn make_room(&mut self, client: Client) {
        let newest = self.clients.newest(client);
        let idle = newest.iter().copied().find(|token| {
            self.conn_and_server(*token).is_some_and(|(conn, _)| conn.streams.open.is_empty())
        });
        if let Some(token) = idle.or_else(|| newest.first().copied()) {
            if let Some((conn, server)) = self.conn_and_server(token) {
                conn.make_room(server);
                self.drop_connection(token as u32 as usize);
            }
        }
    }

    /// Drop the connection at this index. Its socket is closed.
    pub(super) fn drop_connection(&mut self, index: usize) {
        if let Some(mut conn) = self.conns[index].take() {
            if let Some((reason, detail)) = conn.handshake_refusal() {
                self.server.shared.count_handshake_refusal(reason, detail);
            }
            conn.close(&mut self.server);
            self.clients.remove(conn.streams.client, conn.streams.token);
            self.free_indexes.push(index as u32);
            self.open_conns -= 1;
            self.publish_open_conns();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: Client = Client::V4(1);
    const FEW: Client = Client::V4(2);

    fn clients(many: u64, few: u64) -> Clients {
        let worker = Budgets::worker(0, 0);
        let mut clients = Clients::new(8, 6);
        for token in 0..many {
            clients.add(MANY, token, &worker);
        }
        for token in many..many + few {
            clients.add(FEW, token, &worker);
        }
        clients
    }

    #[test]
    fn clients_refuse_a_client_that_has_its_share() {
        assert_eq!(clients(6, 0).room(MANY, 6), Room::Taken);
        assert_eq!(clients(5, 0).room(MANY, 5), Room::Free);
        assert_eq!(clients(6, 0).room(FEW, 6), Room::Free);
    }

    #[test]
    fn clients_make_room_at_the_cost_of_the_biggest_until_all_have_the_same() {
        assert_eq!(clients(6, 2).room(FEW, 8), Room::Of(MANY));
        assert_eq!(clients(5, 3).room(FEW, 8), Room::Of(MANY));
        assert_eq!(clients(4, 4).room(FEW, 8), Room::Taken);
        assert!(matches!(clients(4, 4).room(Client::User(0), 8), Room::Of(_)));
    }

    #[test]
    fn clients_forget_connections_that_are_closed() {
        let mut clients = clients(3, 1);
        assert_eq!(clients.newest(MANY), [2, 1, 0]);
        clients.remove(MANY, 1);
        clients.remove(FEW, 3);
        assert_eq!(clients.newest(MANY), [2, 0]);
        assert!(clients.newest(FEW).is_empty());
        assert_eq!(clients.clients.len(), 1);
    }
}
