// Shows rows of a stream's output as they come, with the stock SignalR client: npm install @microsoft/signalr, then
//   node preview.mjs view_highvalueorders_0123abcd [rows]
import { HubConnectionBuilder, LogLevel } from '@microsoft/signalr';

const [topic, rows = '5'] = process.argv.slice(2);
if (!topic) {
  console.error('usage: node preview.mjs TOPIC [ROWS]');
  process.exit(2);
}
const url = process.env.STREAMVIEW_API_URL ?? 'http://127.0.0.1:8080';
const key = process.env.STREAMVIEW_API_KEY;
const connection = new HubConnectionBuilder()
  .withUrl(`${url}/hub/stream`, key ? { accessTokenFactory: () => key } : {})
  .configureLogging(LogLevel.Warning)
  .build();

let seen = 0;
// Registered before the group is joined: what comes at once is not missed.
connection.on('ReceiveMessage', (row) => {
  console.log(row);
  seen += 1;
  if (seen === Number(rows)) {
    connection.stop();
  }
});
connection.onclose((error) => process.exit(error ? 1 : 0));
await connection.start();
await connection.invoke('JoinStreamGroup', topic);
