// An OPC UA server with N variables that are all written R times a second: the same load for every client.
//
//   node feeder.js PORT N R uniform|mixed
//
// uniform: Doubles, all Good. mixed: Double, Int32, Boolean, Float and String by turns, a tenth of the values Bad.
"use strict";
const { OPCUAServer, Variant, DataType, StatusCodes, SecurityPolicy } = require("node-opcua");

const [port, count, rate] = process.argv.slice(2, 5).map(Number);
const mixed = process.argv[5] === "mixed";
const TYPES = mixed ? ["Double", "Int32", "Double", "Boolean", "Double", "Float", "Double", "Int32", "Double", "String"] : ["Double"];

function value(type, tick) {
    if (type === "Boolean") return tick % 2 === 0;
    if (type === "Int32") return tick;
    if (type === "String") return `step ${tick}`;
    return tick + Math.random();
}

(async () => {
    const server = new OPCUAServer({
        port,
        hostname: "127.0.0.1",
        allowAnonymous: true,
        securityPolicies: [SecurityPolicy.None],
        serverCapabilities: { minSupportedSampleRate: 0, operationLimits: { maxMonitoredItemsPerCall: 10000 } },
    });
    await server.initialize();
    const space = server.engine.addressSpace;
    const own = space.registerNamespace("urn:fieldlab:benchmark");
    const folder = own.addFolder(space.rootFolder.objects, { browseName: "Load" });
    const nodes = [];
    for (let i = 0; i < count; i++) {
        const type = TYPES[i % TYPES.length];
        const node = own.addVariable({ componentOf: folder, browseName: `v${i}`, nodeId: `s=v${i}`, dataType: type, minimumSamplingInterval: 0 });
        node.setValueFromSource(new Variant({ dataType: DataType[type], value: value(type, 0) }));
        nodes.push([node, type]);
    }
    await server.start();
    let tick = 0;
    if (rate > 0) setInterval(() => {
        const now = new Date();
        tick++;
        nodes.forEach(([node, type], i) => {
            const bad = mixed && (i * 7 + tick) % 10 === 0;
            node.setValueFromSource(new Variant({ dataType: DataType[type], value: value(type, tick) }), bad ? StatusCodes.BadSensorFailure : StatusCodes.Good, now);
        });
    }, 1000 / rate);
    process.stdout.write("ready\n", () => {
        process.stdout.write = () => true; // nobody reads on: a full pipe would stop the server
    });
})();
