// A browser's tab with an open stream that is closed: a WebSocket that ends with code 1001, and no message before.
import { createRequire } from 'node:module';

const WebSocket = createRequire(process.cwd() + '/')('ws');
const socket = new WebSocket(process.argv[2]);
const say = (message) => socket.send(JSON.stringify(message) + '\u001e');
socket.on('open', () => say({ protocol: 'json', version: 1 }));
socket.on('message', (data) => {
  const text = data.toString();
  if (text.startsWith('{}')) say({ type: 4, target: 'ExecuteAdHoc', arguments: ['endless'], invocationId: '0' });
  if (text.includes('"type":2')) {
    console.log('streams');
    socket.close(1001);
  }
});
