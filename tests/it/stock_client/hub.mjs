// A client of the hub: the npm package `@microsoft/signalr`, found from the working directory. Writes what it is told, a line of
// JSON for each. Arguments: address, transport, what to do, token.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const find = createRequire(process.cwd() + '/');
const signalr = (await import(pathToFileURL(find.resolve('@microsoft/signalr')))).default;
const [address, transport, what, token] = process.argv.slice(2);
const tell = (line) => console.log(JSON.stringify(line));
const options = { transport: signalr.HttpTransportType[transport], skipNegotiation: what === 'skip' };
if (token) options.accessTokenFactory = () => token;
const builder = new signalr.HubConnectionBuilder().withUrl(address, options).configureLogging(signalr.LogLevel.None);
if (what === 'reconnect') builder.withAutomaticReconnect(Array(100).fill(50));
const connection = builder.build();
const closed = new Promise((resolve) => connection.onclose((error) => resolve(error ? error.message : null)));
connection.onreconnecting((error) => tell({ reconnecting: error ? error.message : null }));
connection.onreconnected(() => tell({ reconnected: true }));
const pushed = new Promise((resolve) => connection.on('ReceiveMessage', resolve));

const told = (promise) => promise.then((value) => ({ value: value ?? null }), (error) => ({ error: error.message }));
const stream = (method, ...given) => new Promise((resolve) => {
  const items = [];
  connection.stream(method, ...given).subscribe({
    next: (item) => items.push(item),
    complete: () => resolve({ items }),
    error: (error) => resolve({ items, error: error.message }),
  });
});
/// Takes some items, and then no more.
const some = (method, given, most) => new Promise((resolve, reject) => {
  let items = 0;
  const subscription = connection.stream(method, given).subscribe({
    next: () => {
      items += 1;
      if (items === most) { subscription.dispose(); resolve({ items }); }
    },
    complete: () => reject(new Error('complete')),
    error: reject,
  });
});

const scenarios = {
  async everything() {
    tell({ connected: connection.connectionId !== null });
    tell({ stream: await stream('ExecuteAdHoc', '3 rows') });
    tell({ failing: await stream('ExecuteAdHoc', '2 rows and an error') });
    tell({ refused: await stream('ExecuteAdHoc', 'DROP') });
    tell({ invoke: await told(connection.invoke('GetQueryLimits')) });
    tell({ lower: await told(connection.invoke('getquerylimits')) });
    tell({ send: await told(connection.send('GetQueryLimits')) });
    tell({ unknown: await told(connection.invoke('NoSuchMethod', 1)) });
    tell({ unknownStream: await stream('NoSuchStream', 1) });
    tell({ plainOfStream: await told(connection.invoke('ExecuteAdHoc', '1 rows')) });
    tell({ streamOfPlain: await stream('GetQueryLimits') });
    tell({ join: await told(connection.invoke('JoinStreamGroup', 'orders')) });
    tell({ pushed: await pushed });
    tell({ leave: await told(connection.invoke('LeaveStreamGroup', 'orders')) });
    tell({ disposed: await some('ExecuteAdHoc', 'endless', 3) });
    tell({ after: await told(connection.invoke('GetQueryLimits')) });
    tell({ long: await told(connection.invoke('JoinStreamGroup', 'x'.repeat(40_000))) });
    tell({ closed: await closed });
  },
  async endless() {
    connection.stream('ExecuteAdHoc', 'endless').subscribe({ next: (item) => tell({ item }), complete() {}, error() {} });
    await closed;
  },
  /// Takes items as fast as they come.
  async flood() {
    // Again and again: in the fastest of so many short ones nothing else was in the way.
    for (let round = 0; round < 10; round += 1) {
      const began = process.hrtime.bigint();
      const { items, error } = await stream('ExecuteAdHoc', '1000 rows');
      tell({ items: items.length, error, seconds: Number(process.hrtime.bigint() - began) / 1e9 });
    }
    await connection.stop();
  },
  async stopping() {
    const streamed = stream('ExecuteAdHoc', 'quiet');
    tell({ connected: true });
    tell({ ended: (await streamed).error, closed: await closed });
  },
  async reconnect() {
    tell({ invoke: await told(connection.invoke('GetQueryLimits')) });
    await new Promise((resolve) => connection.onreconnected(resolve));
    tell({ invoke: await told(connection.invoke('GetQueryLimits')) });
    await connection.stop();
  },
  async login() {
    tell({ stream: await stream('ExecuteAdHoc', '3 rows') });
    tell({ invoke: await told(connection.invoke('GetQueryLimits')) });
    await connection.stop();
  },
  async skip() {
    tell({ stream: await stream('ExecuteAdHoc', '3 rows') });
    await connection.stop();
  },
};
try {
  await connection.start();
} catch (error) {
  tell({ start: error.message });
  process.exit(0);
}
await scenarios[what]();
process.exit(0);
