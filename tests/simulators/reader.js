// Reads an OPC UA server as an independent client: node reader.js URL PKI_FOLDER MACHINE; prints one JSON object.
const {
  OPCUAClient, OPCUACertificateManager, MessageSecurityMode, SecurityPolicy, AttributeIds, DataType, StatusCodes,
} = require("node-opcua");

async function main([url, pki, machine]) {
  const clientCertificateManager = new OPCUACertificateManager({
    rootFolder: pki, automaticallyAcceptUnknownCertificate: true,
  });
  await clientCertificateManager.initialize();
  const client = OPCUAClient.create({
    securityMode: MessageSecurityMode.SignAndEncrypt,
    securityPolicy: SecurityPolicy.Basic256Sha256,
    connectionStrategy: { maxRetry: 0 },
    endpointMustExist: false,
    clientCertificateManager,
  });
  await client.connect(url);
  const session = await client.createSession();
  const namespaces = (await session.readNamespaceArray());
  const ns = namespaces.indexOf("urn:fieldlab:sim");
  const found = await session.browse(`ns=${ns};s=${machine}`);
  const signals = [];
  for (const reference of found.references.filter((r) => r.nodeClass === 2)) {
    const value = await session.read({ nodeId: reference.nodeId, attributeId: AttributeIds.Value });
    signals.push({
      name: reference.browseName.name,
      node: reference.nodeId.toString(),
      value: value.value.value ?? null,
      status: value.statusCode.value,
      source: value.sourceTimestamp && value.sourceTimestamp.toISOString(),
    });
  }
  const refused = await session.write({
    nodeId: `ns=${ns};s=${machine}.diameter`, attributeId: AttributeIds.Value,
    value: { value: { dataType: DataType.Double, value: 1 } },
  });
  const unit = await session.read({ nodeId: `ns=${ns};s=${machine}.diameter.EngineeringUnits`, attributeId: AttributeIds.Value });
  await session.close();
  await client.disconnect();
  console.log(JSON.stringify({
    signals, write: refused === StatusCodes.Good ? "Good" : refused.name, unit: unit.value.value.displayName.text,
  }));
}

main(process.argv.slice(2)).then(() => process.exit(0), (e) => { console.error(e); process.exit(1); });
