// An OPC UA server with N Double variables, all written R times a second: the load for both paths.
"use strict";
const { OPCUAServer, Variant, DataType, StatusCodes } = require("node-opcua");

const [port, count, rate] = process.argv.slice(2).map(Number);

(async () => {
    const server = new OPCUAServer({ port, hostname: "127.0.0.1", allowAnonymous: true, securityPolicies: ["http://opcfoundation.org/UA/SecurityPolicy#None"] });
    await server.initialize();
    const space = server.engine.addressSpace;
    const own = space.registerNamespace("urn:fieldlab:benchmark");
    const folder = own.addFolder(space.rootFolder.objects, { browseName: "Load" });
    const nodes = [];
    for (let i = 0; i < count; i++) {
        nodes.push(own.addVariable({ componentOf: folder, browseName: `v${i}`, nodeId: `s=v${i}`, dataType: "Double", minimumSamplingInterval: 0 }));
    }
    await server.start();
    let tick = 0;
    setInterval(() => {
        const now = new Date();
        for (const node of nodes) {
            node.setValueFromSource(new Variant({ dataType: DataType.Double, value: Math.random() + tick }), StatusCodes.Good, now);
        }
        tick++;
    }, 1000 / rate);
    console.log("ready");
})();
